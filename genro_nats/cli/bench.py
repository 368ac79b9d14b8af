"""``genro-nats bench``: what a call costs on this machine, beside bare nats-py and other pools."""

from __future__ import annotations

import argparse

from genro_nats import bench

__all__ = ["add_arguments", "run"]

_EPILOG = """\
examples:
  genro-nats bench --quick
  genro-nats bench --json figures.json
  genro-nats bench --only calls,schedule --check

With --check the exit code is 1 when a limit is missed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    bench.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code."""
    return bench.run_bench(arguments)
