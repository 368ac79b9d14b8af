"""``genro-nats workers``: which workers there are, and how they do."""

from __future__ import annotations

import argparse
from typing import Final

from genro_nats.cli.fleet import FLEET_HELP, Fleet, add_fleet, apart_lines, with_fleet
from genro_nats.cli.fleet_facts import WORKER_COLUMNS, worker_row
from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json

__all__ = ["add_arguments", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats workers
  genro-nats workers --url nats://nats.example:4222 --user app
  genro-nats workers --json

busy: calls running, of those that can run at once. tasks: durable ones it holds. cpu and memory:
of the worker and its children, what these share counted in each. --json shows each child, too.
{FLEET_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    add_fleet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show them; the exit code.

    Raises:
        NoWorkersError: none answers; with ``--json`` that is an empty list.
    """

    async def work(fleet: Fleet) -> int:
        if arguments.json:
            found = await fleet.ask()
            print(as_json(found))
            fleet.note_silence()
            return 0 if found else 1
        found = await fleet.some()
        show_table(WORKER_COLUMNS, [worker_row(facts) for facts in found])
        for line in apart_lines(found):
            print(f"note: {line}")
        return 0

    return with_fleet(arguments, work)
