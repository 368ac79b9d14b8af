"""``genro-nats schedules``: a pool's recurring tasks, listed or removed."""

from __future__ import annotations

import argparse
from typing import Any, Final

from genro_nats.cli.distrust import note_distrusted
from genro_nats.cli.pool import CONNECTION_HELP, add_pool, with_pool
from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json, moment
from genro_nats.errors import ConfigurationError, TaskError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.tasks.schedule import Schedule

__all__ = ["add_arguments", "run"]

_ACTIONS: Final = ("list", "remove")
_EPILOG: Final = f"""\
examples:
  genro-nats schedules --subject tasks.heavy
  genro-nats schedules remove nightly --subject tasks.heavy

Schedules are made in code: await render.schedule("nightly", cron="0 3 * * *"). Removing one
stops its future runs; runs that are tasks already stay.
{CONNECTION_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "action", metavar="ACTION", nargs="?", choices=_ACTIONS, default="list", help=", ".join(_ACTIONS)
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the schedule to remove")
    add_pool(parser)


def run(arguments: argparse.Namespace) -> int:
    """List or remove; the exit code. Raises TaskError where there is no such schedule."""
    if (arguments.action == "list") == bool(arguments.name):
        raise ConfigurationError(
            "Give `schedules` alone to list, or `schedules remove NAME`. See: genro-nats schedules --help"
        )

    async def work(pool: NatsExecutor) -> int:
        if arguments.action == "remove":
            return await _remove(pool, arguments.name, json=arguments.json)
        found = [schedule async for schedule in pool.schedules()]
        if arguments.json:
            print(as_json([_facts(schedule) for schedule in found]))
        elif found:
            rows = [(each.name, str(each.spec), each.function, moment(each.created_at)) for each in found]
            show_table(("schedule", "when", "function", "stored"), rows)
        else:
            print("No schedules.")
        note_distrusted(pool.metrics["distrusted"])
        return 0

    return with_pool(arguments, work)


async def _remove(pool: NatsExecutor, name: str, *, json: bool) -> int:
    if not await pool.unschedule(name):
        raise TaskError(f"There is no schedule {name!r}: `genro-nats schedules` lists them.")
    print(as_json({"name": name, "removed": True}) if json else f"Schedule {name} is removed.")
    return 0


def _facts(schedule: Schedule) -> dict[str, Any]:
    spec = schedule.spec
    return {
        "name": schedule.name,
        "cron": spec.cron or None,
        "timezone": spec.timezone or None,
        "every": spec.every or None,
        "function": schedule.function,
        "created_at": schedule.created_at,
    }
