"""What tests of a worker's life share: those of the faults, load, and workers as the command starts them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genro_nats import NatsExecutor, PoolOptions
from genro_nats.server import EmbeddedServer
from tests.cli.conftest import Running
from tests.faults import jobs
from tests.faults.conftest import (
    Fleet,
    Notes,
    anyio_backend,
    notes,
    server,
    shared_fleet,
    shared_server,
    shared_tasks,
    until,
)

__all__ = [
    "Load",
    "Site",
    "anyio_backend",
    "fleet_at",
    "notes",
    "server",
    "shared_fleet",
    "shared_server",
    "shared_tasks",
    "site",
    "until",
]


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
            call = self.pool.submit(jobs.work, self.notes.path, key, self.seconds)
            assert await asyncio.wait_for(call, 30) == key
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


class Site:
    """A directory with code, and workers as the command starts them, which import from there."""

    def __init__(self, server: EmbeddedServer, directory: Path, prefix: str) -> None:
        self.directory = directory
        self.prefix = prefix
        self._server = server
        self._started: list[Running] = []
        self._pools: list[NatsExecutor] = []

    def write(self, text: str, name: str = "life_code.py") -> None:
        (self.directory / name).write_text(text)

    def worker(self, *arguments: str, ready: bool = True, **environment: str) -> Running:
        log = self.directory / f"{len(self._started)}.log"
        given = ("--subject", "life", "--prefix", self.prefix, "--path", str(self.directory))
        address = ("--url", self._server.url, "--user", self._server.user)
        secret = {"GENRO_NATS_PASSWORD": self._server.password, "PYTHONDONTWRITEBYTECODE": "1"}
        running = Running(log, ("worker", *given, *address, *arguments), **{**secret, **environment})
        self._started.append(running)
        if ready:
            running.logged("worker.ready")
        return running

    def pool(self, **given: Any) -> NatsExecutor:
        server = self._server
        access: Any = {"url": (server.url,), "user": server.user, "password": server.password}
        options = PoolOptions(**access, subject="life", prefix=self.prefix, **given)
        self._pools.append(NatsExecutor("life", options))
        return self._pools[-1]

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.shutdown(wait=False)
        for running in self._started:
            running.process.kill()
            running.process.communicate(timeout=10)


@pytest.fixture
async def site(shared_server: EmbeddedServer, tmp_path: Path) -> Any:
    found = Site(shared_server, tmp_path, f"s{id(tmp_path)}")
    yield found
    await found.aclose()
