"""Durable tasks and their floor in turns: one at a time, 64 in flight, and what both take of processors."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from genro_nats.bench.processes import cpu_seconds, family
from genro_nats.bench.stats import median, percentile
from genro_nats.errors import ExecutorError

__all__ = ["IN_FLIGHT", "TaskSide", "take_turns", "warm_up"]

IN_FLIGHT: Final = 64
_SLICE: Final = 25  # tasks one at a time before the other side's turn
_WAKING: Final = 5
_PATIENCE: Final = 60.0  # seconds that one turn may take

Call = Callable[[bytes], Awaitable[object]]


@dataclass(slots=True)
class TaskSide:
    """One of the two: ``call`` enqueues and gives the result.

    Figures are one per round: seconds, but ``rate`` is tasks per second; ``cpu``: seconds of
    processor per task with 64 in flight, by process.
    """

    name: str
    call: Call
    data: bytes
    expected: object
    pids: dict[str, int]
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def middle(self, figure: str) -> float:
        """The median over the rounds."""
        rounds: list[float] = getattr(self, figure)
        return median(rounds)


async def warm_up(side: TaskSide) -> None:
    """Let everything be started and imported."""
    async with asyncio.timeout(_PATIENCE):
        for _ in range(20):
            await side.call(side.data)
        await _rate(side, 1_000)


async def take_turns(sides: list[TaskSide], one_by_one: int, in_flight: int) -> None:
    """One round, with so many tasks of both kinds; each round begins with the other side."""
    turn = sides if len(sides[0].rate) % 2 else sides[::-1]
    times: dict[str, list[float]] = {side.name: [] for side in turn}
    gc.collect()
    for _ in range(max(1, one_by_one // _SLICE)):
        for side in turn:
            async with asyncio.timeout(_PATIENCE):
                times[side.name] += await _one_at_a_time(side)
    for side in turn:
        side.p50.append(median(times[side.name]))
        side.p99.append(percentile(times[side.name], 0.99))
    for side in turn:
        gc.collect()
        before = _used(side)
        async with asyncio.timeout(_PATIENCE):
            side.rate.append(await _rate(side, in_flight))
        for who, used in _used(side).items():
            side.cpu.setdefault(who, []).append((used - before[who]) / in_flight)


async def _one_at_a_time(side: TaskSide) -> list[float]:
    """Seconds of each task of a slice, once the side's processes are awake again."""
    times = []
    for _ in range(_WAKING + _SLICE):
        begin = perf_counter()
        await side.call(side.data)
        times.append(perf_counter() - begin)
    return times[_WAKING:]


async def _rate(side: TaskSide, number: int) -> float:
    wrong = 0

    async def lane(tasks: int) -> None:
        nonlocal wrong
        for _ in range(tasks):
            wrong += await side.call(side.data) != side.expected

    shares = [number // IN_FLIGHT + (lane < number % IN_FLIGHT) for lane in range(IN_FLIGHT)]
    begin = perf_counter()
    await asyncio.gather(*map(lane, shares))
    elapsed = perf_counter() - begin
    if wrong:
        raise ExecutorError(f"{side.name}: {wrong} of {number} tasks gave another result.")
    return number / elapsed


def _used(side: TaskSide) -> dict[str, float]:
    """Seconds of processor so far, of caller, worker, its children and the server."""
    used = {"caller": cpu_seconds(os.getpid())}
    for who, pid in side.pids.items():
        used[who] = cpu_seconds(pid)
    worker = side.pids["worker"]
    used["children"] = sum(cpu_seconds(pid) for pid in family(worker) if pid != worker)
    return used
