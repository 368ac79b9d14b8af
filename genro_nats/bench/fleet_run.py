"""How a fleet shares calls and stands being replaced: the benchmark behind ``benchmarks/fleet.py``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from genro_nats.bench.fleet_balance import BalanceFigures, BalancePlan, balance_verdicts, measure_balance
from genro_nats.bench.fleet_restart import RestartFigures, RestartPlan, measure_restart, restart_verdicts
from genro_nats.bench.machine import Machine
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import show_verdicts
from genro_nats.bench.table import show

__all__ = ["run_fleet"]


def run_fleet(args: argparse.Namespace) -> int:
    """Measure and print; the exit code: 0, or with ``--check`` 1 when a limit is missed."""
    machine, progress = Machine.here(), Progress()
    sys.stdout.write("\n".join(machine.lines()) + "\n")
    balance = measure_balance(BalancePlan.of(quick=args.quick, rounds=args.rounds), progress)
    restart = measure_restart(RestartPlan.of(quick=args.quick), progress)
    progress.clear()
    found = balance_verdicts(balance) + restart_verdicts(restart)
    _show(balance, restart)
    show_verdicts(found)
    if args.quick:
        sys.stdout.write("\nA quick run shows that all works; its figures mean little.\n")
    if args.json is not None:
        limits = [{**asdict(it), "passed": it.passed} for it in found]
        figures = {"balance": asdict(balance), "restart": asdict(restart), "limits": limits}
        args.json.write_text(json.dumps({"machine": asdict(machine), **figures}, indent=2) + "\n")
    return int(args.check and not all(it.passed for it in found))


def _show(balance: BalanceFigures, restart: RestartFigures) -> None:
    rows = [["p99 of 1 ms calls, ms", *(str(n + 1) for n in range(len(balance.floor))), "all"]]
    for name, each, whole in (
        ("one worker, four children", balance.floor, balance.floor_p99),
        ("two workers, two children each", balance.fleet, balance.fleet_p99),
    ):
        rows.append([name, *(f"{s * 1e3:.0f}" for s in [*each, whole])])
    show(f"{balance.calls:,} calls of 1 ms, 50 ms and 1 s at load 0.8", rows)
    rows = [["makespan, s", *(str(n + 1) for n in range(len(balance.floor_burst)))]]
    rows.append(["one worker, four children", *(f"{s:.2f}" for s in balance.floor_burst)])
    rows.append(["two workers, two children each", *(f"{s:.2f}" for s in balance.fleet_burst)])
    show("Bursts", rows)
    rows = [["workers replaced", "seconds", "calls", "failed", "p99 ms", "tasks", "lost"]]
    counts = [restart.replaced, round(restart.seconds, 1), restart.calls, restart.failed]
    rows.append([*map(str, counts), f"{restart.p99 * 1e3:.0f}", str(restart.tasks), str(restart.lost)])
    show("A rolling restart", rows)
    for error in restart.errors:
        sys.stdout.write(f"{error}\n")
