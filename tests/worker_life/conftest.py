"""What tests of a worker's life share: those of the faults, and a server that no fixture owns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from genro_nats import NatsExecutor, PoolOptions
from tests.faults import jobs
from tests.faults.conftest import (
    Fleet,
    Notes,
    anyio_backend,
    notes,
    server,
    shared_fleet,
    shared_server,
    until,
)

__all__ = ["Load", "anyio_backend", "fleet_at", "notes", "server", "shared_fleet", "shared_server", "until"]


def fleet_at(directory: Any, *urls: str, prefix: str = "life") -> Fleet:
    """Workers and callers of servers that ask for no login."""
    at: Any = SimpleNamespace(url=urls[0], user=None, password=None)
    return Fleet(at, prefix, directory)


@dataclass
class Load:
    """Calls without a pause from several lanes, until told to stop; each has to come back, once."""

    pool: NatsExecutor
    notes: Notes
    seconds: float = 0.002
    lanes: int = 12

    def __post_init__(self) -> None:
        self.done = 0
        self._stopping = False
        self._begun = 0
        self._running = [asyncio.ensure_future(self._lane()) for _ in range(self.lanes)]

    async def _lane(self) -> None:
        while not self._stopping:
            key = f"call{self._begun}"
            self._begun += 1
            assert (
                await asyncio.wait_for(self.pool.submit(jobs.work, self.notes.path, key, self.seconds), 30)
                == key
            )
            self.done += 1

    async def more(self, count: int = 50, limit: float = 30.0) -> None:
        """Wait until so many more have come back."""
        goal = self.done + count
        await until(lambda: self.done >= goal or any(lane.done() for lane in self._running), limit)
        for lane in self._running:
            if lane.done():
                lane.result()

    async def end(self) -> int:
        """Stop, and see that none was lost or ran twice; how many there were."""
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*self._running), 60)
        assert self.done == self._begun
        assert self.notes.most() == 1
        return self.done


def caller(url: str, prefix: str = "life", **given: Any) -> NatsExecutor:
    return NatsExecutor("faults", PoolOptions(url=(url,), subject="faults", prefix=prefix, **given))
