"""``genro-nats bench``: what calls, tasks, payloads and fleets cost on this machine, beside others."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from genro_nats import bench
from genro_nats.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_ABOUT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "calls": "one call, 100 in flight, 10,000 in flight, mixed long and short, imports, an idle pool",
        "tasks": "durable tasks beside bare nats-py on JetStream; a long queue; waiting for results",
        "payloads": "8 MiB to 1 GiB there and back, arrays, closures, signed calls, both codecs",
        "fleet": "two workers beside one with as many children; a rolling restart under load",
        "life": "a worker's start, its memory and CPU when idle, calls while children are replaced",
    }
)
_RUN: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = MappingProxyType(
    {
        "calls": bench.run_bench,
        "tasks": bench.run_tasks,
        "payloads": bench.run_payloads,
        "fleet": bench.run_fleet,
        "life": bench.run_life,
    }
)
_LIST: Final = "\n".join(f"  {name:9} {text}" for name, text in _ABOUT.items())
_EPILOG: Final = f"""\
what can be measured:
{_LIST}

examples:
  genro-nats bench --quick
  genro-nats bench --only calls,schedule --check
  genro-nats bench fleet --json figures.json

Each prints what must be reached, with its figure; with --check the exit code is 1 when one is missed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("what", nargs="?", choices=tuple(_ABOUT), default="calls", help="default: calls")
    bench.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code. Raises ConfigurationError and as ``run_bench``."""
    if arguments.what != "calls" and arguments.only is not bench.SCENARIOS:
        raise ConfigurationError(
            f"--only chooses among scenarios of calls: leave it out with {arguments.what}"
        )
    return _RUN[arguments.what](arguments)
