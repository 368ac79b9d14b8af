"""Durable tasks that nobody takes yet: how fast they are stored, what they weigh, what waiting costs."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

from genro_nats.bench.functions import no_op, started_at
from genro_nats.bench.ground import bench_server, login, pool_options, worker_peer
from genro_nats.bench.processes import resident
from genro_nats.bench.stats import median, percentile
from genro_nats.errors import ExecutorError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.server import EmbeddedServer
from genro_nats.tasks.handle import TaskHandle
from genro_nats.transport.subjects import TaskSubjects
from genro_nats.transport.task_floor import TaskFloor

__all__ = [
    "IdleToRunning",
    "QueueMemory",
    "StoreFigures",
    "WaitFigures",
    "count_while_waiting",
    "memory_of_queue",
    "sample_task",
    "time_storing",
    "time_to_running",
]

_PATIENCE: Final = 120.0  # seconds
_SETTLING: Final = 2.0  # seconds in which the server may write and collect
_PAUSE: Final = 0.03  # seconds without a task before the next one meets an idle pool

Store = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class StoreFigures:
    """Tasks stored per second, one figure per round."""

    tasks: int
    floor: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Ours to the floor's, the median over the rounds."""
        return median([mine / bare for mine, bare in zip(self.ours, self.floor, strict=True)])


@dataclass(frozen=True, slots=True)
class QueueMemory:
    """The server's memory, bytes; ``at_once``: right after the last was stored, ``after``: a while later."""

    tasks: int
    size: int
    before: int
    at_once: int
    after: int

    @property
    def added(self) -> int:
        """The most that the tasks added."""
        return max(self.at_once, self.after) - self.before


@dataclass(frozen=True, slots=True)
class WaitFigures:
    """``sent``: messages from the caller while it waited, as the server counted them."""

    tasks: int
    seconds: float
    sent: int


@dataclass(frozen=True, slots=True)
class IdleToRunning:
    """Seconds from ``enqueue`` on an idle pool to the function's first line."""

    p50: float
    p99: float


async def sample_task(server: EmbeddedServer, floor: TaskFloor, subject: str) -> bytes:
    """The message that a task of the no-op is."""
    options = pool_options(server, subject)
    async with NatsExecutor(subject, **options) as pool:
        await pool(no_op).enqueue(b"x")
    return await floor.last_of(_stream(pool))


async def time_storing(
    server: EmbeddedServer, floor: TaskFloor, data: bytes, tasks: int, rounds: int
) -> StoreFigures:
    """``enqueue_many`` and bare pipelined publishes of the same bytes, in turns."""
    figures = StoreFigures(tasks)
    async with NatsExecutor("bench.stored", **pool_options(server, "bench.stored")) as pool:

        async def ours() -> None:
            await pool(no_op).enqueue_many([b"x"] * tasks)

        async def bare() -> None:
            await floor.store_many(data, tasks)

        await pool(no_op).enqueue(b"x")
        for number in range(rounds):
            turn = [(ours, figures.ours), (bare, figures.floor)]
            for store, found in turn if number % 2 else turn[::-1]:
                found.append(tasks / await _timed(store))
            await floor.purge(_stream(pool))
            await floor.forget_many()
    return figures


async def _timed(store: Store) -> float:
    async with asyncio.timeout(_PATIENCE):
        begin = perf_counter()
        await store()
        return perf_counter() - begin


async def memory_of_queue(tasks: int) -> tuple[QueueMemory, QueueMemory]:
    """What queued tasks add to a fresh server, and bare messages of the same bytes to another."""
    async with asyncio.timeout(_PATIENCE):
        with bench_server(jetstream=True) as server:
            async with NatsExecutor("bench.queued", **pool_options(server, "bench.queued")) as pool:
                await pool(no_op).enqueue(b"x")
                floor = await TaskFloor.connect(**login(server))
                data = await floor.last_of(_stream(pool))
                await floor.aclose()

                async def many() -> None:
                    await pool(no_op).enqueue_many([b"x"] * tasks)

                ours = await _weighed(server, tasks, len(data), many)
        with bench_server(jetstream=True) as server:
            floor = await TaskFloor.connect(**login(server))
            await floor.store_many(data, 1)
            bare = await _weighed(server, tasks, len(data), lambda: floor.store_many(data, tasks))
            await floor.aclose()
    return ours, bare


async def _weighed(server: EmbeddedServer, tasks: int, size: int, store: Store) -> QueueMemory:
    await asyncio.sleep(_SETTLING)
    before = resident(server.pid)
    await store()
    at_once = resident(server.pid)
    await asyncio.sleep(_SETTLING)
    return QueueMemory(tasks, size, before, at_once, resident(server.pid))


async def count_while_waiting(server: EmbeddedServer, tasks: int, idle: float) -> WaitFigures:
    """Wait for tasks ``idle`` seconds before their worker starts, and until all are settled."""
    subject = "bench.waited"
    async with asyncio.timeout(_PATIENCE), NatsExecutor(subject, **pool_options(server, subject)) as pool:
        handles: list[TaskHandle[bytes]] = await pool(no_op).enqueue_many([b"x"] * tasks)
        before = await _sent_by_caller(server, subject)
        begin = perf_counter()
        waiting = asyncio.gather(*(handle.result() for handle in handles))
        await asyncio.sleep(idle)
        worker = worker_peer(server, subject)
        await asyncio.to_thread(worker.__enter__)
        try:
            results = await waiting
            elapsed = perf_counter() - begin
            sent = await _sent_by_caller(server, subject) - before
        finally:
            await asyncio.to_thread(worker.__exit__, None, None, None)
    if results.count(b"x") != tasks:
        raise ExecutorError(f"{tasks - results.count(b'x')} of {tasks} tasks gave another result.")
    return WaitFigures(tasks, elapsed, sent)


async def _sent_by_caller(server: EmbeddedServer, name: str) -> int:
    """Messages that the server got on the caller's connection; pings are none."""
    connections = await asyncio.to_thread(_connections, server)
    found = [it["in_msgs"] for it in connections if it.get("name", "").endswith(f"caller {name}")]
    if len(found) != 1:
        raise ExecutorError(f"The server knows {len(found)} connections of caller {name}.")
    return int(found[0])


def _connections(server: EmbeddedServer) -> list[dict[str, Any]]:
    where = urlsplit(server.monitoring_url or "").netloc
    client = http.client.HTTPConnection(where, timeout=10)
    try:
        client.request("GET", "/connz?limit=1000")
        found: list[dict[str, Any]] = json.loads(client.getresponse().read())["connections"]
        return found
    finally:
        client.close()


async def time_to_running(pool: NatsExecutor, tasks: int) -> IdleToRunning:
    """Enqueue one task after the other, each on an idle pool whose children are there."""
    times = []
    async with asyncio.timeout(_PATIENCE):
        await (await pool(started_at).enqueue()).result()
        for _ in range(tasks):
            await asyncio.sleep(_PAUSE)
            begin = time.monotonic()
            times.append(await (await pool(started_at).enqueue()).result() - begin)
    return IdleToRunning(median(times), percentile(times, 0.99))


def _stream(pool: NatsExecutor) -> str:
    options = pool.options
    return TaskSubjects(options.prefix, options.subject or "").tasks_stream
