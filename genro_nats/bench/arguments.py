"""The arguments of the benchmark, the same for ``genro-nats bench`` and ``benchmarks/calls.py``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

__all__ = ["SCENARIOS", "add_arguments", "add_common_arguments"]

SCENARIOS: Final = ("calls", "inflight", "schedule", "import", "idle")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach a parser what ``run_bench`` takes."""
    parser.add_argument(
        "--only",
        type=_scenarios,
        metavar="NAMES",
        default=SCENARIOS,
        help=f"of calls, comma-separated: {', '.join(SCENARIOS)} (default: all)",
    )
    add_common_arguments(parser, "7, of payloads, fleet and life 5")


def add_common_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Teach a parser what every benchmark takes; ``default``: how many rounds there are unless stated."""
    parser.add_argument(
        "--rounds",
        type=_rounds,
        metavar="N",
        help=f"rounds; figures are medians over them (default: {default})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="half a minute: shows that all works, its figures mean little"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE too")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")


def _scenarios(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SCENARIOS:
            raise argparse.ArgumentTypeError(f"no scenario {name!r}: use {', '.join(SCENARIOS)}")
    return tuple(name for name in SCENARIOS if name in names)


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} rounds: use 1 to 1000")
    return int(text)
