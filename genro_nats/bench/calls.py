"""Scenario ``calls``: one at a time, many in flight, and large values, on all systems in turns."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from genro_nats.bench.ground import bench_server
from genro_nats.bench.plan import BIG, LANES, Plan
from genro_nats.bench.progress import Progress
from genro_nats.bench.stats import median, percentile
from genro_nats.bench.systems import Caller, open_systems
from genro_nats.errors import ExecutorError
from genro_nats.server import EmbeddedServer

__all__ = ["SystemFigures", "measure_calls"]

_SMALL: Final = b"x"
_LARGE: Final = b"x" * BIG
_SECONDS: Final = 1.5  # that one round of calls in flight should take at most
_FEWEST: Final = 2_000
_SLICE: Final = 50  # calls one at a time before the next system's turn
_WAKING: Final = 10


@dataclass(slots=True)
class SystemFigures:
    """One system, one figure per round: seconds, but ``rate`` is calls per second.

    ``in_flight``: how many calls each round's ``rate`` comes from.
    """

    name: str
    in_flight: int = 0
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    big: list[float] = field(default_factory=list)

    def middle(self, figure: str) -> float:
        """The median over the rounds."""
        rounds: list[float] = getattr(self, figure)
        return median(rounds)


def measure_calls(plan: Plan, progress: Progress) -> list[SystemFigures]:
    """The figures of every system.

    Raises:
        ExecutorError: a system gave back another value than it got.
    """
    with bench_server() as server:
        return asyncio.run(_measure(plan, progress, server))


async def _measure(plan: Plan, progress: Progress, server: EmbeddedServer) -> list[SystemFigures]:
    async with AsyncExitStack() as stack:
        progress("calls: starting all systems")
        systems = await open_systems(stack, server)
        figures = {name: SystemFigures(name) for name in systems}
        for name, call in systems.items():
            progress(f"calls: warming up {name}")
            figures[name].in_flight = await _warm_up(call, plan)
        names = list(systems)
        for number in range(plan.rounds):
            # Each round begins with another system, so that none always follows the same.
            at = number * 3 % len(names)
            turn = [(systems[name], figures[name]) for name in names[at:] + names[:at]]
            progress(f"calls: round {number + 1} of {plan.rounds}")
            await _one_round(turn, plan)
        return list(figures.values())


async def _warm_up(call: Caller, plan: Plan) -> int:
    """How many calls in flight a round may have to end in a bearable time."""
    for _ in range(20):
        await call(_SMALL)
    await _rate(call, 500)
    await _big(call)
    rate = await _rate(call, 1_000)
    return min(plan.in_flight, max(_FEWEST, round(rate * _SECONDS / LANES) * LANES))


async def _one_round(systems: list[tuple[Caller, SystemFigures]], plan: Plan) -> None:
    # What is compared is measured close in time: other programs' load comes and goes in seconds.
    times: list[list[float]] = [[] for _ in systems]
    gc.collect()
    for _ in range(plan.sequential // _SLICE):
        for (call, _), found in zip(systems, times, strict=True):
            found.extend(await _one_at_a_time(call))
    for (_, figures), found in zip(systems, times, strict=True):
        figures.p50.append(median(found))
        figures.p99.append(percentile(found, 0.99))
    for call, figures in systems:
        gc.collect()
        figures.rate.append(await _rate(call, figures.in_flight))
    large = [[await _big(call) for call, _ in systems] for _ in range(plan.big_echoes)]
    for (_, figures), *found in zip(systems, *large, strict=True):
        figures.big.append(median(found))


async def _one_at_a_time(call: Caller) -> list[float]:
    """Seconds of each call of a slice, once the system's processes are awake again."""
    for _ in range(_WAKING):
        await call(_SMALL)
    times = []
    for _ in range(_SLICE):
        begin = perf_counter()
        await call(_SMALL)
        times.append(perf_counter() - begin)
    return times


async def _rate(call: Caller, count: int) -> float:
    answered = 0

    async def lane() -> None:
        nonlocal answered
        for _ in range(count // LANES):
            if await call(_SMALL) == _SMALL:
                answered += 1

    begin = perf_counter()
    await asyncio.gather(*(lane() for _ in range(LANES)))
    elapsed = perf_counter() - begin
    expected = count // LANES * LANES
    if answered != expected:
        raise ExecutorError(f"{expected - answered} of {expected} calls gave back another value.")
    return expected / elapsed


async def _big(call: Caller) -> float:
    begin = perf_counter()
    answer = await call(_LARGE)
    elapsed = perf_counter() - begin
    if len(answer) != BIG or answer[-1] != _LARGE[-1]:
        raise ExecutorError(f"{len(answer)} bytes came back for {BIG}.")
    return elapsed
