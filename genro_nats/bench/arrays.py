"""A large NumPy array to a process of this machine and back: a local pool beside ProcessPoolExecutor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from genro_nats.bench.functions import echo_large
from genro_nats.bench.stats import median
from genro_nats.errors import ExecutorError
from genro_nats.executor.process import ProcessExecutor

__all__ = ["ArrayFigures", "time_arrays"]

_STEP: Final = 512  # items of eight bytes: one of each page is read


@dataclass(slots=True)
class ArrayFigures:
    """Echoes of one size in turns; seconds, one figure per round."""

    size: int
    stdlib: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How often ours goes into the other one."""
        return median(self.stdlib) / median(self.ours)


async def time_arrays(size: int, rounds: int) -> ArrayFigures:
    """Echoes in turns; what comes back is looked at on every page, for that is when it is there."""
    import numpy as np

    data = np.random.default_rng(0).random(size // 8)
    total = float(data[::_STEP].sum())
    loop = asyncio.get_running_loop()
    figures = ArrayFigures(size)
    with ProcessPoolExecutor(1) as stdlib:
        async with ProcessExecutor("arrays", max_workers=1, spares=0) as pool:

            async def theirs() -> Any:
                return await loop.run_in_executor(stdlib, echo_large, data)

            async def ours() -> Any:
                return await pool.submit(echo_large, data)

            for number in range(rounds + 1):
                turn = [await _timed(call, total) for call in (theirs, ours)]
                if number:  # the first starts the processes
                    figures.stdlib.append(turn[0])
                    figures.ours.append(turn[1])
    return figures


async def _timed(call: Callable[[], Awaitable[Any]], total: float) -> float:
    begin = perf_counter()
    answer = await call()
    found = float(answer[::_STEP].sum())
    elapsed = perf_counter() - begin
    if found != total:
        raise ExecutorError("Another array came back.")
    return elapsed
