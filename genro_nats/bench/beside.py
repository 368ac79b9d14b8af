"""Small calls while large ones go on, beside small calls while an equal bare load does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from genro_nats.bench.large import Echo, payload
from genro_nats.bench.plan import BIG
from genro_nats.bench.stats import median, percentile

__all__ = ["BesideFigures", "time_beside"]

Small = Callable[[bytes], Awaitable[Any]]


@dataclass(slots=True)
class BesideFigures:
    """p99 of small calls in seconds, one per round; ``rates``: bytes per second that went each way."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The medians' ratio."""
        return median(self.ours) / median(self.bare)


class _Load:
    """One large echo after the other, no faster than ``rate`` bytes per second each way (None: no limit)."""

    def __init__(self, echo: Echo, data: bytes, rate: float | None = None) -> None:
        self._echo = echo
        self._data = data
        self._rate = rate
        self.echoed = 0
        self.stopping = False

    async def run(self) -> None:
        begin = perf_counter()
        while not self.stopping:
            await self._echo(self._data)
            self.echoed += len(self._data)
            if self._rate is not None:
                await asyncio.sleep(max(0.0, begin + self.echoed / self._rate - perf_counter()))


async def time_beside(
    small: Small, large: Echo, floor: Echo, size: int, rounds: int, seconds: float
) -> BesideFigures:
    """Turns of ``seconds``: with echoes of ``size`` bytes through the pool, then with bare ones of 8 MiB."""
    figures = BesideFigures()
    data, bare = payload(size), payload(BIG)
    # Every child has imported what it runs before the first turn.
    await asyncio.gather(large(data), *(small(b"x") for _ in range(20)))
    for _ in range(rounds):
        p99, rate = await _turn(small, _Load(large, data), seconds)
        figures.ours.append(p99)
        p99, bare_rate = await _turn(small, _Load(floor, bare, rate), seconds)
        figures.bare.append(p99)
        figures.rates.append((rate, bare_rate))
    return figures


async def _turn(small: Small, load: _Load, seconds: float) -> tuple[float, float]:
    """p99 of the small calls, and the rate of the load in full echoes."""
    loading = asyncio.create_task(load.run())
    begin = perf_counter()
    times = []
    while (now := perf_counter()) - begin < seconds or not load.echoed:
        await small(b"x")
        times.append(perf_counter() - now)
    rate = load.echoed / (perf_counter() - begin)
    load.stopping = True  # not cancelled: nats-py may go deaf over a publish that was
    await loading
    return percentile(times, 0.99), rate
