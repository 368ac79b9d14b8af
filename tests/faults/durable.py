"""What the tests of durable tasks share: a pool with workers that can be broken, and a ledger of outcomes."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from genro_nats import NatsExecutor
from genro_nats.config import PoolOptions
from genro_nats.errors import DecodeError
from genro_nats.message import new_id
from genro_nats.tasks.record import Record, Stored
from genro_nats.tasks.store import StateStore
from genro_nats.tasks.streams import ensure_streams
from genro_nats.transport.address import Address
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.streams import consumer_state
from genro_nats.transport.subjects import TaskSubjects, from_token
from tests.faults.conftest import Fleet, Worker

LEASE = 2.0


async def reach(condition: Callable[[], Awaitable[object]], limit: float = 10.0) -> Any:
    """Poll until ``await condition()`` gives something true, and give that."""
    async with asyncio.timeout(limit):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
    return found


class Ledger:
    """Hears every state that the server stores, and counts the outcomes of each task."""

    def __init__(self, js: JetStream, subjects: TaskSubjects) -> None:
        self.js = js
        self.subjects = subjects
        self.store = StateStore(js, subjects)
        self.settled: defaultdict[str, set[int]] = defaultdict(set)  # sequences of outcomes
        self.history: defaultdict[str, list[Record]] = defaultdict(list)

    def heard(self, message: Message) -> None:
        id = from_token(message.subject.rpartition(".")[2])
        try:
            record = Stored(message.data, 0).record
        except DecodeError:
            return
        self.history[id].append(record)
        if record.state.settled:
            self.settled[id].add(int(message.headers["Nats-Sequence"]))

    async def check(self, ids: Iterable[str], limit: float = 20.0) -> Counter[str]:
        """Each is settled exactly once, and stays so; how many ended how. Nothing is left on the queue."""
        ids = list(ids)
        assert len(set(ids)) == len(ids)
        ends: Counter[str] = Counter()
        for id in ids:
            ends[(await self.outcome(id, limit)).state.value] += 1
        # What was told of an outcome is what is stored: no other one came before or after it.
        for id in ids:
            stored = await self.store.load(id)
            assert stored is not None
            assert self.settled[id] <= {stored.seq}, id
        await self.empty(limit)
        return ends

    async def outcome(self, id: str, limit: float = 20.0) -> Record:
        async def settled() -> Record | None:
            stored = await self.store.load(id)
            return stored.record if stored is not None and stored.record.state.settled else None

        record: Record = await reach(settled, limit)
        return record

    async def empty(self, limit: float = 20.0) -> None:
        """Wait until the queue is."""

        async def is_empty() -> bool:
            return await self.queued() == 0

        await reach(is_empty, limit)

    async def queued(self) -> int:
        """Tasks that are not off the queue, running ones included."""
        info = await self.js.api(f"STREAM.INFO.{self.subjects.tasks_stream}")
        return int(info["state"]["messages"])

    async def unacknowledged(self, level: str = "normal") -> int:
        return (await consumer_state(self.js, self.subjects.tasks_stream, level)).unacknowledged


class TaskFleet(Fleet):
    """A fleet whose workers and callers agree on a short lease; ``ledger()`` counts outcomes."""

    lease = LEASE

    def options(self, **given: Any) -> dict[str, Any]:
        return super().options(**{"lease": self.lease, **given})

    async def worker(self, **given: Any) -> Worker:
        return await super().worker(**{"cancel_grace": 0.3, **given})

    def caller(self, **given: Any) -> NatsExecutor:
        return super().caller(**given)

    @property
    def subjects(self) -> TaskSubjects:
        return TaskSubjects(self.prefix, "faults")

    def pool_options(self, **given: Any) -> PoolOptions:
        access = {"url": (self.server.url,), "user": self.server.user, "password": self.server.password}
        return PoolOptions(**self.options(**access, **given))

    @asynccontextmanager
    async def ledger(self, **given: Any) -> AsyncIterator[Ledger]:
        async with open_ledger(self.pool_options(**given)) as ledger:
            yield ledger


@asynccontextmanager
async def open_ledger(options: PoolOptions) -> AsyncIterator[Ledger]:
    assert options.subject is not None
    connection = Connection(Address(options), "ledger")
    await connection.start()
    js = JetStream(connection, f"{options.prefix}.api.{new_id().hex()}.")
    await js.start()
    subjects = TaskSubjects(options.prefix, options.subject)
    try:
        await js.insist(lambda: ensure_streams(js, subjects, options), 20)
        ledger = Ledger(js, subjects)
        await connection.subscribe(subjects.of("told", "*", "*", "*"), ledger.heard)
        await connection.flush()
        yield ledger
    finally:
        await js.aclose()
        await connection.aclose()


def worker_pid() -> int:
    """In a child: the process id of its worker, the parent of the template that forked it."""
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])
