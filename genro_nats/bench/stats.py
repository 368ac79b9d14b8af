"""Figures from samples: percentiles, the best schedule, calls held back. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

__all__ = ["Interval", "Run", "best_makespan", "held_back", "idle_gaps", "median", "overlap", "percentile"]

Interval = tuple[float, float]


class Run(NamedTuple):
    """One call as it ran: by which process, and when (seconds on one clock)."""

    pid: int
    start: float
    end: float
    long: bool


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` (0 to 1) of all do not exceed."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def best_makespan(durations: Sequence[float], lanes: int) -> float:
    """Seconds that no schedule of these calls on ``lanes`` can beat."""
    return max(sum(durations) / lanes, *durations)


def idle_gaps(runs: Iterable[Run], begin: float, until: float) -> list[Interval]:
    """When one process ran nothing, between ``begin`` and ``until``."""
    gaps: list[Interval] = []
    free = begin
    for run in sorted(runs, key=lambda run: run.start):
        if run.start >= until:
            break
        if run.start > free:
            gaps.append((free, run.start))
        free = max(free, run.end)
    if free < until:
        gaps.append((free, until))
    return gaps


def overlap(one: Interval, other: Interval) -> float:
    """Seconds that two intervals share."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def held_back(
    runs: Sequence[Run], submitted: float, tolerance: float, processes: int
) -> list[tuple[Run, float]]:
    """Short calls that waited while their own process ran a long one and another had nothing to do.

    Each with the longest such wait in seconds; those up to ``tolerance`` are the way of a
    call to an idle process, no wait. Of ``processes``, those that ran nothing were idle throughout.
    """
    by_pid: dict[int, list[Run]] = {}
    for run in runs:
        by_pid.setdefault(run.pid, []).append(run)
    by_pid.update({-unused: [] for unused in range(1, processes - len(by_pid) + 1)})
    found = []
    for short in (run for run in runs if not run.long):
        ahead = [run for run in by_pid[short.pid] if run.long and run.start < short.start]
        gaps = [
            gap
            for pid, others in by_pid.items()
            if pid != short.pid
            for gap in idle_gaps(others, submitted, short.start)
        ]
        worst = max((overlap((run.start, run.end), gap) for run in ahead for gap in gaps), default=0.0)
        if worst > tolerance:
            found.append((short, worst))
    return found
