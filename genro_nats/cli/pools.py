"""``genro-nats pools``: which subjects are served, by how many, and what waits for them."""

from __future__ import annotations

import argparse
from typing import Any, Final

from genro_nats.cli.fleet import FLEET_HELP, Fleet, add_fleet, with_fleet
from genro_nats.cli.fleet_facts import empty_pool, pool_sums
from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json, one_line
from genro_nats.errors import ExecutorError, NoWorkersError
from genro_nats.transport.identity import identity, named_peer
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.subjects import TaskSubjects, api_inbox, pool_of_stream, token

__all__ = ["add_arguments", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats pools
  genro-nats pools --prefix staging --json

busy: calls running, of those that can run at once. queued: calls that wait at workers. tasks:
durable ones that are stored and not settled, running and delayed ones included ("-": the server
has no JetStream, or this user may not ask). A pool without workers is shown while it has tasks.
{FLEET_HELP}"""
_COLUMNS: Final = ("subject", "workers", "busy", "queued", "tasks", "held", "done", "failed", "mean")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    add_fleet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show them; the exit code.

    Raises:
        NoWorkersError: no worker answers, and no tasks wait.
    """

    async def work(fleet: Fleet) -> int:
        sums = pool_sums(await fleet.ask())
        fleet.note_silence()
        await _add_tasks(fleet, sums)
        if arguments.json:
            print(as_json([{"subject": subject, **found} for subject, found in sums.items()]))
        elif sums:
            show_table(_COLUMNS, [_row(subject, found) for subject, found in sums.items()])
            for subject, found in sums.items():
                if not found["workers"]:
                    print(
                        f"note: nobody serves {one_line(subject)}: genro-nats worker --subject {one_line(subject)}"
                    )
        else:
            raise NoWorkersError(
                f"No worker answers at {fleet.connection.shown} under the prefix {fleet.options.prefix!r}, and no "
                "tasks wait: start a worker (genro-nats worker --subject ...), or check --url and --prefix."
            )
        return 0 if sums else 1

    return with_fleet(arguments, work)


async def _add_tasks(fleet: Fleet, sums: dict[str, dict[str, Any]]) -> None:
    """How many tasks each pool's stream holds; pools that nobody serves are added if theirs holds some."""
    prefix = fleet.options.prefix
    js = JetStream(fleet.connection, api_inbox(prefix, named_peer(identity(fleet.options), 24)))
    counts: dict[str, int] = {}
    known = True
    try:
        await js.start()
        counts = await _counts(js, prefix)
    except ExecutorError:
        known = False
    finally:
        await js.aclose()
    streams = {TaskSubjects(prefix, subject).tasks_stream: subject for subject in sums}
    for stream, count in counts.items():
        subject = streams.get(stream) or pool_of_stream(prefix, stream)
        if subject is not None and (subject in sums or count):
            sums.setdefault(subject, empty_pool())["tasks"] = count
    for found in sums.values():
        found.setdefault("tasks", 0 if known else None)


async def _counts(js: JetStream, prefix: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    while True:
        page = await js.api(
            "STREAM.LIST", {"offset": len(counts), "subject": f"{prefix}.task.>"}, patience=0.0
        )
        found = page.get("streams") or []
        counts |= {stream["config"]["name"]: stream["state"]["messages"] for stream in found}
        if not found or len(counts) >= page["total"]:
            return {name: count for name, count in counts.items() if name.startswith(f"{token(prefix)}-")}


def _row(subject: str, found: dict[str, Any]) -> tuple[str, ...]:
    done = found["completed"] + found["failed"]
    workers = str(found["workers"]) + (f" ({found['draining']} draining)" if found["draining"] else "")
    return (
        one_line(subject),
        workers,
        f"{found['busy']}/{found['slots']}",
        str(found["queued"]),
        "-" if found["tasks"] is None else str(found["tasks"]),
        str(found["tasks_held"]),
        str(found["completed"]),
        str(found["failed"]),
        f"{found['seconds'] / done * 1000:.3g} ms" if done else "-",
    )
