"""A steady load of calls on a fleet, and what became of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from genro_nats import ExecutorError


class Load:
    """``errors``: those of calls that failed, by number; ``hosts``: how many calls each ran."""

    def __init__(self, function: Callable[..., Any], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._calls: list[asyncio.Task[None]] = []
        self.sent = 0
        self.slowest = 0.0  # seconds
        self.done: set[int] = set()
        self.errors: dict[int, ExecutorError] = {}
        self.hosts: Counter[str] = Counter()

    async def _one(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            same, host = await self._function(number, self._seconds)
        except ExecutorError as error:
            self.errors[number] = error
        else:
            assert same == number
            self.done.add(number)
            self.hosts[host] += 1
            self.slowest = max(self.slowest, loop.time() - began)

    async def _send(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            while self.sent < (loop.time() - began) * rate:
                self._calls.append(asyncio.create_task(self._one(self.sent)))
                self.sent += 1
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def steady(self, rate: float, settle: float = 60.0) -> AsyncIterator[None]:
        """``rate`` calls a second meanwhile; then all of them end, within ``settle`` seconds."""
        sending = asyncio.create_task(self._send(rate))
        try:
            yield
        finally:
            sending.cancel()
        async with asyncio.timeout(settle):
            await asyncio.gather(*self._calls)
