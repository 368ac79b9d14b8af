"""One run of the benchmark, from arguments to exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from time import perf_counter

from genro_nats.bench.calls import measure_calls
from genro_nats.bench.idle import measure_idle
from genro_nats.bench.importing import measure_import
from genro_nats.bench.inflight import measure_inflight
from genro_nats.bench.limits import Results, Verdict, verdicts
from genro_nats.bench.machine import Machine
from genro_nats.bench.plan import Plan
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import as_json, show_results, show_verdicts
from genro_nats.bench.schedule import measure_schedule
from genro_nats.config import bypass_from_env
from genro_nats.errors import ConfigurationError

__all__ = ["exit_code", "measure", "run_bench"]


def run_bench(args: argparse.Namespace) -> int:
    """Measure, print, and write what ``add_arguments`` describes; the exit code.

    0, or with ``--check`` 1 when a limit is missed.

    Raises:
        ConfigurationError: all pools of this process would run inline.
        ExecutorError: something measured lost a call, or did not start.
    """
    if bypass_from_env():
        raise ConfigurationError("GENRO_EXECUTOR_BYPASS makes every pool run inline: unset it to measure.")
    machine, plan = Machine.here(), Plan.of(quick=args.quick, rounds=args.rounds)
    sys.stdout.write("\n".join(machine.lines()) + "\n")
    begin = perf_counter()
    results = measure(plan, args.only)
    found = verdicts(results)
    show_results(results)
    show_verdicts(found)
    if args.quick:
        sys.stdout.write("\nA quick run shows that all works; its figures mean little.\n")
    sys.stdout.write(f"\n{perf_counter() - begin:.0f} s, load average now {os.getloadavg()[0]:.2f}\n")
    if args.json is not None:
        args.json.write_text(json.dumps(as_json(machine, plan, results, found), indent=2) + "\n")
    return exit_code(found, check=args.check)


def exit_code(found: Sequence[Verdict], *, check: bool) -> int:
    """1 when a limit is missed and that is to be told, else 0."""
    return int(check and not all(it.passed for it in found))


def measure(plan: Plan, scenarios: tuple[str, ...]) -> Results:
    """The figures of these scenarios."""
    progress = Progress()
    results = Results()
    if "calls" in scenarios:
        results.calls = measure_calls(plan, progress)
    if "inflight" in scenarios:
        results.inflight = measure_inflight(plan, progress)
    if "schedule" in scenarios:
        results.schedule = measure_schedule(plan, progress)
    if "import" in scenarios:
        results.imports = measure_import(plan, progress)
    if "idle" in scenarios:
        results.idle = measure_idle(plan, progress)
    progress.clear()
    return results
