"""The life of one worker, measured: the benchmark behind ``benchmarks/life.py``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from genro_nats.bench.arguments import rounds
from genro_nats.bench.fleet_life import LifePlan, life_verdicts, measure_life, show_life
from genro_nats.bench.machine import Machine
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import show_verdicts

__all__ = ["add_life_arguments", "run_life"]


def add_life_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach a parser what ``run_life`` takes."""
    parser.add_argument("--quick", action="store_true", help="small and short: shows that all works")
    parser.add_argument("--rounds", type=rounds, metavar="N", help="rounds (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE too")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")


def run_life(args: argparse.Namespace) -> int:
    """Measure and print; the exit code: 0, or with ``--check`` 1 when a limit is missed."""
    machine, progress = Machine.here(), Progress()
    sys.stdout.write("\n".join(machine.lines()) + "\n")
    figures = measure_life(LifePlan.of(quick=args.quick, rounds=args.rounds), progress)
    progress.clear()
    found = life_verdicts(figures)
    show_life(figures)
    show_verdicts(found)
    if args.json is not None:
        limits = [{**asdict(it), "passed": it.passed} for it in found]
        document = {"machine": asdict(machine), "life": asdict(figures), "limits": limits}
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(args.check and not all(it.passed for it in found))
