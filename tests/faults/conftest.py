"""What fault tests share: bounded waits, execution counts, and workers as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from genro_nats import NatsExecutor, PoolOptions
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.roster import Roster
from genro_nats.server import EmbeddedServer

if TYPE_CHECKING:
    from tests.faults.durable import TaskFleet

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def until(condition: Callable[[], object], limit: float = 10.0) -> float:
    """Poll until ``condition()`` is true; the seconds it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit, "not within the limit"
        await asyncio.sleep(0.005)
    return time.monotonic() - begin


async def soonest(attempt: Callable[[], Awaitable[float]], limit: float, turns: int = 5) -> None:
    """One of the ``turns`` must show less than ``limit`` seconds: a busy machine delays some, never speeds one up."""
    shown: list[float] = []
    while len(shown) < turns:
        shown.append(await attempt())
        if shown[-1] < limit:
            return
    raise AssertionError(f"none within {limit} s: {shown}")


def alive(pid: int) -> bool:
    """Does the process run? (A zombie does not.)"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def roster(pool: Any) -> Roster:
    """The children of a process pool."""
    found: Roster = pool._home.engine._pool.roster
    return found


def children(pool: Any) -> list[int]:
    """The pids of its active children."""
    return [child.pid for child in roster(pool).active]


class Notes:
    """A file in which jobs note their executions."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []

    def counts(self) -> Counter[str]:
        return Counter(self.lines())

    def most(self) -> int:
        """How often the most executed one ran."""
        return max(self.counts().values(), default=0)

    async def wait(self, count: int = 1, limit: float = 10.0) -> list[str]:
        await until(lambda: len(self.lines()) >= count, limit)
        return self.lines()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


WORKER = """
import asyncio, json, logging, signal, sys
from genro_nats import PoolOptions
from genro_nats.events import Events
from genro_nats.worker.agent import ServedPool, WorkerAgent

given = json.loads(sys.argv[1])
kind = given.pop("kind", "process")
drain = given.pop("drain_timeout", 20.0)
options = PoolOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})

def show(name, facts):
    print(json.dumps([name, facts], default=str), flush=True)

async def main():
    agent = WorkerAgent([ServedPool(options, kind)], options, drain_timeout=drain, events=Events([show]))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop)
    return await agent.run()

sys.exit(asyncio.run(main()))
"""


class Worker:
    """A worker process; ``events`` are those it has told so far."""

    def __init__(self, server: EmbeddedServer, log: Path, path: Path | None = None, **given: Any) -> None:
        self.log = log
        options = {"url": [server.url], "user": server.user, "password": server.password, **given}
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, json.dumps(options)],
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT))))},
                cwd=ROOT,
            )

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                name, facts = json.loads(line)
                found.append((name, facts))
        return found

    def count(self, name: str) -> int:
        return sum(event == name for event, _ in self.events)

    async def ready(self) -> Worker:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.with_suffix(".err").read_text()
            return self.count("worker.ready") > 0

        await until(is_ready, 20)
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, limit: float = 20.0) -> int:
        await until(lambda: self.process.poll() is not None, limit)
        return int(self.process.returncode)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for tests that leave it alone; they differ by prefix."""
    with EmbeddedServer(directory=_private(tmp_path_factory.mktemp("shared") / "server")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server to be killed and restarted."""
    with EmbeddedServer(directory=_private(tmp_path / "server")) as server:
        yield server


def _private(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


class Fleet:
    """Workers and callers of one pool of one server."""

    def __init__(self, server: EmbeddedServer, prefix: str, directory: Path) -> None:
        self.server = server
        self.prefix = prefix
        self._directory = directory
        self.workers: list[Worker] = []
        self._callers: list[NatsExecutor] = []

    def options(self, **given: Any) -> dict[str, Any]:
        return {"subject": "faults", "prefix": self.prefix, **given}

    async def worker(self, **given: Any) -> Worker:
        given = {"max_workers": 2, "spares": 1, **given}
        log = self._directory / f"worker{len(self.workers)}.log"
        worker = Worker(self.server, log, **self.options(**given))
        self.workers.append(worker)
        return await worker.ready()

    def caller(self, **given: Any) -> NatsExecutor:
        access = {"url": (self.server.url,), "user": self.server.user, "password": self.server.password}
        pool = NatsExecutor("faults", PoolOptions(**self.options(**{**access, **given})))
        self._callers.append(pool)
        return pool

    async def aclose(self) -> None:
        for pool in self._callers:
            await pool.shutdown(wait=False)
        for worker in self.workers:
            worker.end()


@pytest.fixture
async def fleet(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    found = Fleet(server, "own", tmp_path)
    yield found
    await found.aclose()


@pytest.fixture
async def shared_fleet(shared_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    found = Fleet(shared_server, f"p{os.urandom(4).hex()}", tmp_path)
    yield found
    await found.aclose()


@pytest.fixture
async def tasks(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[TaskFleet]:
    """A pool of durable tasks with a server of its own, to be killed."""
    from tests.faults.durable import TaskFleet

    found = TaskFleet(server, "own", tmp_path)
    yield found
    await found.aclose()


@pytest.fixture
async def shared_tasks(shared_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[TaskFleet]:
    """The same on the server that many tests share."""
    from tests.faults.durable import TaskFleet

    found = TaskFleet(shared_server, f"p{os.urandom(4).hex()}", tmp_path)
    yield found
    await found.aclose()


def stop_reading(child: Child) -> socket.socket:
    """From now on the parent does not hear this child; its end of the pipe."""
    sock = child._pipe._sock
    asyncio.get_running_loop().remove_reader(sock.fileno())
    return sock


def read_again(child: Child) -> None:
    """Undo ``stop_reading``."""
    asyncio.get_running_loop().add_reader(child._pipe._sock.fileno(), child._pipe._readable)
