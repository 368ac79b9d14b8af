"""The report of a run: tables for people, one object for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from genro_nats.bench.calls import SystemFigures
from genro_nats.bench.limits import Results, Verdict
from genro_nats.bench.machine import Machine
from genro_nats.bench.plan import Plan
from genro_nats.bench.systems import FLOOR, FLOOR_UVLOOP, STDLIB
from genro_nats.bench.table import show

__all__ = ["as_json", "show_results", "show_verdicts"]

Rows = list[list[str]]


def show_results(results: Results) -> None:
    """Print a table for each scenario that ran."""
    if results.calls is not None:
        _show_calls(results.calls)
    if (inflight := results.inflight) is not None:
        rows = [
            ["calls", "unanswered at one time", "lost", "before MB", "peak MB", "added MB", "calls/s"],
            [f"{inflight.calls:,}", f"{inflight.outstanding:,}", str(inflight.lost)]
            + [f"{size / 1e6:.1f}" for size in (inflight.before, inflight.peak, inflight.added)]
            + [f"{inflight.calls / inflight.seconds:,.0f}"],
        ]
        show("Calls in flight from one caller over nats", rows)
    if results.schedule is not None:
        _show_schedule(results)
    if (imports := results.imports) is not None:
        rows = [["bare python ms", "+ genro_nats", "+ ProcessExecutor", "+ NatsExecutor"]]
        rows.append(
            [f"{t * 1e3:.1f}" for t in (imports.bare, imports.package, imports.process, imports.nats)]
        )
        show("Import, each over the bare start", rows)
    if (idle := results.idle) is not None:
        rows = [["processes", "seconds", "% of a core", f"{idle.memory_kind} MB"]]
        rows.append([f"{idle.processes}", f"{idle.seconds:.1f}"])
        rows[1] += [f"{idle.share * 100:.2f}", f"{idle.memory / 1e6:.1f}"]
        show("An idle worker with two children", rows)


def _show_calls(calls: Sequence[SystemFigures]) -> None:
    bases = [name for name in (FLOOR, FLOOR_UVLOOP, STDLIB) if any(it.name == name for it in calls)]
    ratios = [f"x {name}" for name in bases]

    def rows(header: list[str], figure: str, shown: Callable[[SystemFigures], list[str]]) -> Rows:
        by_name = {it.name: it.middle(figure) for it in calls}
        table = [["system", *header, *ratios]]
        for it in calls:
            over = [f"{it.middle(figure) / by_name[base]:.2f}" for base in bases]
            table.append([it.name, *shown(it), *over])
        return table

    def one(it: SystemFigures) -> list[str]:
        return [f"{it.middle('p50') * 1e6:.0f}", f"{it.middle('p99') * 1e6:.0f}"]

    def many(it: SystemFigures) -> list[str]:
        return [f"{it.middle('rate'):,.0f}", f"{it.in_flight:,}"]

    show("One at a time (ratios of p50)", rows(["p50 us", "p99 us"], "p50", one))
    show("100 in flight", rows(["calls/s", "calls per round"], "rate", many))
    show("8 MiB echo", rows(["ms"], "big", lambda it: [f"{it.middle('big') * 1e3:.1f}"]))


def _show_schedule(results: Results) -> None:
    rows = [["kind", "functions", "best s", "median s", "x best", "held back", "longest ms"]]
    for it in results.schedule or ():
        shown = [f"{it.best:.3f}", f"{it.ratio * it.best:.3f}", f"{it.ratio:.3f}"]
        rows.append([it.kind, str(it.functions), *shown, str(it.held_back), f"{it.longest_wait * 1e3:.0f}"])
    show("Long and short calls submitted together to two children", rows)


def show_verdicts(found: Sequence[Verdict]) -> None:
    """Print what must be reached, and whether it is."""
    rows = [["must reach", "figure", "", "limit", "unit", ""]]
    for it in found:
        sign = "<=" if it.at_most else ">="
        rows.append(
            [it.what, f"{it.figure:.4g}", sign, f"{it.limit:g}", it.unit, "pass" if it.passed else "FAIL"]
        )
    show("Limits", rows)


def as_json(machine: Machine, plan: Plan, results: Results, found: Sequence[Verdict]) -> dict[str, Any]:
    """Everything, with the figures of each round."""
    return {
        "machine": asdict(machine),
        "plan": asdict(plan),
        **asdict(results),
        "limits": [{**asdict(it), "passed": it.passed} for it in found],
    }
