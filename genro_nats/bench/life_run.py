"""The life of one worker, measured: the benchmark behind ``benchmarks/life.py``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from genro_nats.bench.fleet_life import LifePlan, life_verdicts, measure_life, show_life
from genro_nats.bench.machine import Machine
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import show_verdicts

__all__ = ["run_life"]


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
