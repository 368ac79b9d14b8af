"""``genro-nats tasks``: a pool's durable tasks, of one state or of all."""

from __future__ import annotations

import argparse
from typing import Final

from genro_nats.cli.distrust import note_distrusted
from genro_nats.cli.pool import CONNECTION_HELP, add_pool, with_pool
from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json, moment, one_line, status_facts
from genro_nats.errors import ConfigurationError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["add_arguments", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats tasks --subject tasks.heavy
  genro-nats tasks --subject tasks.heavy --state failed --limit 20
  genro-nats tasks --config workers/worker.toml --subject tasks.heavy --state running --json

Running tasks are in the list of --state running once they have run for a second.
{CONNECTION_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    states = tuple(state.value for state in TaskState)
    parser.add_argument(
        "--state", choices=states, metavar="STATE", help=f"{', '.join(states)}; default: all of them"
    )
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many; default 100")
    add_pool(parser)


def run(arguments: argparse.Namespace) -> int:
    """List them; the exit code."""
    if arguments.limit < 1:
        raise ConfigurationError(f"--limit is {arguments.limit}: use 1 or more.")

    async def work(pool: NatsExecutor) -> int:
        found = [status async for status in pool.tasks(state=arguments.state, limit=arguments.limit)]
        if arguments.json:
            print(as_json([status_facts(status) for status in found]))
        else:
            _show(found, arguments)
        note_distrusted(pool.metrics["distrusted"])
        return 0

    return with_pool(arguments, work)


def _show(found: list[TaskStatus], arguments: argparse.Namespace) -> None:
    if not found:
        print(f"No {arguments.state + ' ' if arguments.state else ''}tasks.")
        return
    rows = [
        (
            status.id,
            status.state.value,
            str(status.attempts),
            moment(status.created_at),
            moment(status.finished_at or status.next_retry_at),
            one_line(status.error),
        )
        for status in found
    ]
    show_table(("task", "state", "attempts", "created", "finished or due", "error"), rows)
    if len(found) == arguments.limit:
        print(f"There may be more: --limit is {arguments.limit}.")
