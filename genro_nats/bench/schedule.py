"""Scenario ``schedule``: long and short calls submitted together, beside the best possible schedule."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from genro_nats.bench.functions import echo, long_sleep, short_sleep, timed_sleep
from genro_nats.bench.ground import bench_server, pool_options, worker_peer
from genro_nats.bench.plan import CHILDREN, Plan
from genro_nats.bench.progress import Progress
from genro_nats.bench.stats import Run, best_makespan, held_back, median
from genro_nats.executor.nats import NatsExecutor
from genro_nats.executor.pool import Pool
from genro_nats.executor.process import ProcessExecutor

__all__ = ["TOLERANCE", "ScheduleFigures", "measure_schedule"]

TOLERANCE: Final = 0.01  # seconds; a call's way to an idle child, on a busy machine
_SEED: Final = 20
_TIMEOUT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class ScheduleFigures:
    """One kind of pool: seconds of each repetition, and of the best possible schedule.

    ``held_back``: short calls that waited behind a long one while the other child was
    idle, of all repetitions; ``longest_wait``: the longest such wait, seconds.
    """

    kind: str
    functions: int
    makespans: list[float]
    best: float
    held_back: int
    longest_wait: float

    @property
    def ratio(self) -> float:
        """The median makespan over the best possible."""
        return median(self.makespans) / self.best


def measure_schedule(plan: Plan, progress: Progress) -> list[ScheduleFigures]:
    """Kinds process and nats; long and short as one function, and as two."""
    figures = []
    for kind in ("process", "nats"):
        for functions in (1, 2):
            progress(f"schedule: {kind}, {functions} function{'s' * (functions - 1)}")
            figures.append(_measure(plan, kind, functions))
    return figures


def _measure(plan: Plan, kind: str, functions: int) -> ScheduleFigures:
    makespans: list[float] = []
    waits: list[float] = []
    for repetition in range(plan.repeats):
        submitted, runs = _one_run(plan, kind, functions, _SEED + repetition)
        makespans.append(max(run.end for run in runs) - submitted)
        waits += [wait for _, wait in held_back(runs, submitted, TOLERANCE, CHILDREN)]
    best = best_makespan(_durations(plan), CHILDREN)
    return ScheduleFigures(kind, functions, makespans, best, len(waits), max(waits, default=0.0))


def _durations(plan: Plan) -> list[float]:
    return [plan.long_seconds] * plan.longs + [plan.short_seconds] * plan.shorts


def _one_run(plan: Plan, kind: str, functions: int, seed: int) -> tuple[float, list[Run]]:
    durations = _durations(plan)
    random.Random(seed).shuffle(durations)
    # New children each time: what a pool learnt of these functions before would not count.
    with ExitStack() as stack:
        pool: Pool
        if kind == "process":
            pool = ProcessExecutor("bench-schedule", max_workers=CHILDREN)
        else:
            server = stack.enter_context(bench_server())
            stack.enter_context(worker_peer(server, "bench.schedule"))
            pool = NatsExecutor("bench-schedule", **pool_options(server, "bench.schedule"))
        return asyncio.run(_submit(pool, durations, functions, plan.long_seconds))


async def _submit(
    pool: Pool, durations: list[float], functions: int, long_seconds: float
) -> tuple[float, list[Run]]:
    long: Callable[[float], Any] = pool(timed_sleep if functions == 1 else long_sleep)
    short: Callable[[float], Any] = pool(timed_sleep if functions == 1 else short_sleep)
    async with pool, asyncio.timeout(_TIMEOUT):
        await asyncio.gather(*(pool.submit(echo, None) for _ in range(2 * CHILDREN)))
        submitted = time.monotonic()
        intervals = await asyncio.gather(
            *(long(seconds) if seconds == long_seconds else short(seconds) for seconds in durations)
        )
    runs = [
        Run(pid, start, end, seconds == long_seconds)
        for seconds, (pid, start, end) in zip(durations, intervals, strict=True)
    ]
    return submitted, runs
