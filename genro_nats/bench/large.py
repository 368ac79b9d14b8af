"""Large echoes over NATS: beside the bare echo where that can, with peak memory where it matters."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from genro_nats.bench.peaks import MemoryPeaks
from genro_nats.bench.plan import BIG
from genro_nats.bench.stats import median
from genro_nats.errors import ExecutorError

__all__ = ["MIB", "EchoFigures", "HugeFigures", "payload", "time_big", "time_huge"]

MIB: Final = 1 << 20

Echo = Callable[[bytes], Awaitable[bytes]]


@dataclass(slots=True)
class EchoFigures:
    """8 MiB echoes, bare and ours in turns; seconds, one figure per round."""

    floor: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The medians' ratio."""
        return median(self.ours) / median(self.floor)


@dataclass(slots=True)
class HugeFigures:
    """One size, in bytes: seconds of the fastest echo, and bytes added at most to caller and worker."""

    size: int
    seconds: float
    caller: int
    worker: int

    @property
    def rate(self) -> float:
        """Bytes per second each way: there and back take this long together."""
        return 2 * self.size / self.seconds


def payload(size: int) -> bytes:
    """Whole MiB of bytes that really take memory (zeros would not)."""
    return os.urandom(MIB) * (size // MIB)


async def time_big(floor: Echo, ours: Echo, rounds: int, echoes: int) -> EchoFigures:
    """8 MiB echoes in turns; the first of each is not counted."""
    data = payload(BIG)
    figures = EchoFigures()
    for number in range(rounds + 1):
        turns = [(await _timed(floor, data), await _timed(ours, data)) for _ in range(echoes)]
        if number:
            figures.floor.append(median([bare for bare, _ in turns]))
            figures.ours.append(median([mine for _, mine in turns]))
    return figures


async def time_huge(ours: Echo, size: int, worker: int, echoes: int) -> HugeFigures:
    """Echoes of one size, with the peak memory over all of them; the payload itself counts."""
    gc.collect()
    with MemoryPeaks(worker) as peaks:
        data = payload(size)
        seconds = min([await _timed(ours, data) for _ in range(echoes)])
    return HugeFigures(size, seconds, peaks.caller, peaks.worker)


async def _timed(echo: Echo, data: bytes) -> float:
    begin = perf_counter()
    answer = await echo(data)
    elapsed = perf_counter() - begin
    if len(answer) != len(data) or answer[-MIB:] != data[-MIB:]:
        raise ExecutorError(f"{len(answer)} bytes came back for {len(data)}.")
    return elapsed
