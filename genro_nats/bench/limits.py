"""What the figures must reach, and whether they do. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genro_nats.bench.calls import SystemFigures
from genro_nats.bench.idle import IdleFigures
from genro_nats.bench.importing import ImportFigures
from genro_nats.bench.inflight import InflightFigures
from genro_nats.bench.schedule import ScheduleFigures
from genro_nats.bench.systems import FLOOR, NATS, PROCESS, STDLIB

__all__ = ["Results", "Verdict", "verdicts"]

_MB = 1_000_000


@dataclass(slots=True)
class Results:
    """What was measured; None for a scenario that did not run."""

    calls: list[SystemFigures] | None = None
    inflight: InflightFigures | None = None
    schedule: list[ScheduleFigures] | None = None
    imports: ImportFigures | None = None
    idle: IdleFigures | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit: ``figure`` has to be at most, or else at least, ``limit``."""

    what: str
    figure: float
    limit: float
    unit: str
    at_most: bool = True

    @property
    def passed(self) -> bool:
        """Is the limit kept?"""
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit


def verdicts(results: Results) -> list[Verdict]:
    """A verdict for each limit on what was measured."""
    found: list[Verdict] = []
    if results.calls is not None:
        found += _of_calls(results.calls)
    if results.inflight is not None:
        found += _of_inflight(results.inflight)
    for figures in results.schedule or ():
        found += _of_schedule(figures)
    if results.imports is not None:
        found.append(Verdict("import genro_nats", results.imports.package * 1e3, 120, "ms"))
    if results.idle is not None:
        found.append(Verdict("idle worker", results.idle.share * 100, 1, "% of a core"))
    return found


def _of_calls(calls: Sequence[SystemFigures]) -> Iterator[Verdict]:
    by_name = {figures.name: figures for figures in calls}

    def ratio(name: str, base: str, figure: str) -> float:
        return by_name[name].middle(figure) / by_name[base].middle(figure)

    floor, pool = "x nats-py echo", "x ProcessPoolExecutor"
    yield Verdict("nats: one at a time, p50", ratio(NATS, FLOOR, "p50"), 1.4, floor)
    yield Verdict("nats: calls/s, 100 in flight", ratio(NATS, FLOOR, "rate"), 0.55, floor, at_most=False)
    yield Verdict("nats: calls/s, 100 in flight", ratio(NATS, STDLIB, "rate"), 2, pool, at_most=False)
    yield Verdict("nats: 8 MiB echo", ratio(NATS, FLOOR, "big"), 1.5, floor)
    yield Verdict("process: calls/s, 100 in flight", ratio(PROCESS, STDLIB, "rate"), 2, pool, at_most=False)
    yield Verdict("process: one at a time, p50", ratio(PROCESS, STDLIB, "p50"), 1, pool)


def _of_inflight(figures: InflightFigures) -> Iterator[Verdict]:
    what = f"nats: {figures.calls:,} calls in flight"
    yield Verdict(f"{what}, memory added to the caller", figures.added / _MB, 60, "MB")
    yield Verdict(f"{what}, lost", figures.lost, 0, "calls")
    yield Verdict(
        f"{what}, unanswered at one time", figures.outstanding, figures.calls, "calls", at_most=False
    )


def _of_schedule(figures: ScheduleFigures) -> Iterator[Verdict]:
    what = f"{figures.kind}: schedule, {figures.functions} function{'s' * (figures.functions - 1)}"
    yield Verdict(f"{what}, time", figures.ratio, 1.15, "x best possible")
    yield Verdict(f"{what}, short calls held back", figures.held_back, 0, "calls")
