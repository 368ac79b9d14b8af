"""Calls of a closure over 5 MB beside calls of the same body by name, in turns."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from genro_nats.bench.lookup import closure, look
from genro_nats.bench.stats import median
from genro_nats.executor.pool import Pool

__all__ = ["ClosureFigures", "time_closures"]

_SLICE: Final = 20  # calls
_WARM: Final = 40  # calls at once before a turn is measured: every child has imported its module


@dataclass(slots=True)
class ClosureFigures:
    """Seconds that ``calls`` calls one after the other took on a kind of pool, one figure per round.

    By value the first call of a new closure counts, with its pickling and sending.
    """

    kind: str
    calls: int
    by_name: list[float] = field(default_factory=list)
    by_value: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: turns beside each other meet the same machine."""
        return median([value / name for name, value in zip(self.by_name, self.by_value, strict=True)])


async def time_closures(pool: Pool, calls: int, rounds: int) -> ClosureFigures:
    """Rounds of ``calls`` calls by name and as many of a closure that is new in each round."""
    figures = ClosureFigures(pool.kind, calls)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is large is what is measured
        await asyncio.gather(*(pool.submit(look, n) for n in range(_WARM)))
        for _ in range(rounds):
            by_name, by_value = await _round(pool, calls)
            figures.by_name.append(by_name)
            figures.by_value.append(by_value)
    return figures


async def _round(pool: Pool, calls: int) -> tuple[float, float]:
    """Seconds by name and by value, in slices by turns: a machine that others use is not the same for long."""
    new = closure()
    total = [0.0, 0.0]
    for begin in range(0, calls, _SLICE):
        turns = [(0, look), (1, new)]
        for which, function in turns if begin // _SLICE % 2 else reversed(turns):
            total[which] += await _timed(pool, function, range(begin, min(calls, begin + _SLICE)))
    return total[0], total[1]


async def _timed(pool: Pool, function: Callable[[int], int], numbers: range) -> float:
    begin = perf_counter()
    for number in numbers:
        await pool.submit(function, number)
    return perf_counter() - begin
