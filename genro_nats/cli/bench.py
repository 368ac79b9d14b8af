"""``genro-nats bench``: what calls and tasks cost on this machine, beside bare nats-py and other pools."""

from __future__ import annotations

import argparse

from genro_nats import bench
from genro_nats.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_EPILOG = """\
examples:
  genro-nats bench --quick
  genro-nats bench --json figures.json
  genro-nats bench --only calls,schedule --check
  genro-nats bench tasks

"tasks" measures durable tasks in place of calls.

With --check the exit code is 1 when a limit is missed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("what", nargs="?", choices=("tasks",), help="durable tasks (default: calls)")
    bench.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code. Raises ConfigurationError and as ``run_bench``."""
    if arguments.what == "tasks":
        if arguments.only is not bench.SCENARIOS:
            raise ConfigurationError("--only chooses among scenarios of calls: leave it out with tasks")
        return bench.run_tasks(arguments)
    return bench.run_bench(arguments)
