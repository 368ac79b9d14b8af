"""Durable tasks, and the broker killed, restarted, or without JetStream; and callers killed in mid-enqueue."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.codec.values import dumps
from genro_nats.config import PoolOptions
from genro_nats.errors import StreamMismatchError, StreamUnavailableError
from genro_nats.server import EmbeddedServer
from genro_nats.tasks.record import Record
from genro_nats.tasks.status import TaskState
from genro_nats.testing import WorkerProcess
from genro_nats.transport.direct import scan
from genro_nats.transport.jetstream import API
from genro_nats.transport.subjects import from_token
from tests.faults import task_jobs
from tests.faults.conftest import ROOT, Notes, until
from tests.faults.durable import LEASE, TaskFleet, open_ledger, reach
from tests.transport.brokers import Broker

pytestmark = pytest.mark.anyio


async def test_the_broker_is_killed_while_results_are_awaited(tasks: TaskFleet, notes: Notes) -> None:
    for _ in range(2):
        await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        items = [(notes.path, n, 0.01) for n in range(300)]
        handles = await pool(task_jobs.work_item).enqueue_many(items)
        late = handles[:50]  # expected, and waited for only afterwards
        waiting = asyncio.gather(*(task.result(timeout=60) for task in handles[50:]))
        await notes.wait(60)
        tasks.server.kill()
        await asyncio.sleep(0.3)  # an outage in which those in hand end
        await asyncio.to_thread(tasks.server.restart)
        assert await waiting == list(range(50, 300))
        assert [await task.result(timeout=10) for task in late] == list(range(50))
        assert await ledger.check([task.id for task in handles], 30) == {"completed": 300}
    counts = notes.counts()
    assert set(counts) == {str(n) for n in range(300)}
    assert sum(counts.values()) <= 300 + 64  # what was in hand


async def test_nothing_is_asked_while_results_are_awaited(tasks: TaskFleet, notes: Notes) -> None:
    """Who waits through a restart of the broker is told: no polling."""
    pool = tasks.caller()
    async with tasks.ledger():
        handles = await pool(task_jobs.work_item).enqueue_many([(notes.path, n, 0) for n in range(100)])
        waiting = asyncio.gather(*(task.result(timeout=60) for task in handles))
        tasks.server.kill()
        await until(lambda: not pool.metrics["connected"])
        await asyncio.to_thread(tasks.server.restart)
        await until(lambda: pool.metrics["connected"])
        await asyncio.sleep(1.0)  # what is asked once, after an outage
        client: Any = pool._home.engine._connection._client  # type: ignore[union-attr]
        before = client.stats["out_msgs"]
        await asyncio.sleep(1.0)  # nothing is to come in it
        assert client.stats["out_msgs"] - before <= 1
        await tasks.worker()
        assert await waiting == list(range(100))
        assert client.stats["out_msgs"] - before <= 5


ENQUEUE = """
import asyncio, sys
from genro_nats import NatsExecutor, PoolOptions
from tests.faults import task_jobs

async def main(url, user, password, prefix, path, lease, base, many):
    options = PoolOptions(url=(url,), user=user, password=password, prefix=prefix, subject="faults",
                          lease=float(lease))
    pool = NatsExecutor("faults", options)
    await pool.start()
    work = pool(task_jobs.work_item)
    print("begun", flush=True)
    for n in range(int(base), int(base) + 5000, 50):
        if many == "many":
            for task in await work.enqueue_many([(path, k, 0.0) for k in range(n, n + 50)]):
                print(task.id, flush=True)
        else:
            for k in range(n, n + 50):
                print((await work.enqueue((path, k, 0.0))).id, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_callers_killed_while_they_enqueue(shared_tasks: TaskFleet, notes: Notes) -> None:
    """What was confirmed is stored; what is stored is whole, and runs once."""
    confirmed: set[str] = set()
    async with shared_tasks.ledger() as ledger:
        rounds = [_killed(shared_tasks, notes, n * 10_000, "many" if n % 2 else "one") for n in range(12)]
        for begin in range(0, len(rounds), 3):
            for found in await asyncio.gather(*rounds[begin : begin + 3]):
                confirmed |= found
        stream, subject = ledger.subjects.tasks_stream, ledger.subjects.of("task", ">")
        stored = await scan(ledger.js, stream, subject, limit=100_000)
        stored_ids = [from_token(message.subject.rpartition(".")[2]) for message in stored]
        assert confirmed
        assert confirmed <= set(stored_ids)
        worker = await shared_tasks.worker()
        assert await ledger.check(stored_ids, 40) == {"completed": len(stored_ids)}
        assert len(notes.lines()) == len(notes.counts()) == len(stored_ids)
        assert worker.count("task.unreadable") == 0


async def _killed(tasks: TaskFleet, notes: Notes, base: int, many: str) -> set[str]:
    """The ids that a caller got before it was killed at a random moment."""
    server = tasks.server
    access = [server.url, server.user, server.password, tasks.prefix, notes.path, str(LEASE)]
    caller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENQUEUE, *access, str(base), many, cwd=ROOT, stdout=subprocess.PIPE
    )
    assert caller.stdout is not None
    assert await asyncio.wait_for(caller.stdout.readline(), 20) == b"begun\n"
    await asyncio.sleep(random.uniform(0.0, 0.25))
    caller.kill()
    rest = await caller.stdout.read()
    await caller.wait()
    return {line.decode() for line in rest.split(b"\n")[:-1]}


async def test_jetstream_comes_after_the_worker(tmp_path: Path, notes: Notes) -> None:
    broker = Broker(tmp_path / "broker")
    options: dict[str, Any] = {"url": [broker.url()], "subject": "faults", "prefix": "late", "lease": LEASE}
    pool = NatsExecutor("faults", PoolOptions(**{**options, "url": (broker.url(),)}))
    worker = WorkerProcess({**options, "max_workers": 1, "spares": 0})
    try:
        assert await pool.submit(task_jobs.work, notes.path, "call") == "call"  # calls need none
        begin = time.monotonic()
        with pytest.raises(StreamUnavailableError, match="start nats-server with -js"):
            await pool.enqueue(task_jobs.work, notes.path, "never")
        assert time.monotonic() - begin < 5  # it is not waited for like a leader that was killed
        broker.kill()
        broker = Broker(
            tmp_path / "broker", f'jetstream {{ store_dir: "{tmp_path / "store"}" }}', broker.port
        )
        async with open_ledger(pool.options) as ledger:
            tasks = [await pool.enqueue(task_jobs.work, notes.path, n, 0.3) for n in range(8)]
            assert [await task.result(timeout=30) for task in tasks] == list(range(8))
            assert await ledger.check(task.id for task in tasks) == {"completed": 8}
            assert notes.most() == 1
        assert worker.running
    finally:
        await pool.shutdown(wait=False)
        worker.stop()
        broker.kill()


async def test_a_service_that_failed_in_the_middle_of_its_start(tasks: TaskFleet, notes: Notes) -> None:
    """The broker dies while the worker starts: what had begun is undone, and nothing is taken twice."""
    pool = tasks.caller()
    for pause in (0.0, 0.01, 0.03):
        starting = asyncio.create_task(tasks.worker(spares=0, max_workers=1))
        count = len(tasks.workers)
        await until(lambda c=count: len(tasks.workers) > c)  # type: ignore[misc]
        worker = tasks.workers[-1]
        err = worker.log.with_suffix(".err")
        await asyncio.sleep(0.35 + pause)  # somewhere in its start
        tasks.server.kill()
        await asyncio.to_thread(tasks.server.restart)
        try:
            await starting
        except AssertionError:
            assert "ConnectionLostError" in err.read_text()  # no server at the start: it says so and ends
    await tasks.worker()
    async with tasks.ledger() as ledger:
        handles = [await pool.enqueue(task_jobs.work, notes.path, n, 0.1) for n in range(20)]
        assert [await task.result(timeout=30) for task in handles] == list(range(20))
        assert await ledger.check(task.id for task in handles) == {"completed": 20}
        assert notes.most() == 1


async def test_streams_with_other_settings_are_shown_by_worker_and_caller(
    shared_tasks: TaskFleet, shared_server: EmbeddedServer
) -> None:
    async with shared_tasks.ledger(storage="memory"):
        pass
    with pytest.raises(StreamMismatchError, match=r"wanted storage='file'; found storage='memory'"):
        await shared_tasks.caller().enqueue(os.getpid)
    with pytest.raises(AssertionError, match=r"wanted storage='file'; found storage='memory'"):
        await shared_tasks.worker()
    assert await (await shared_tasks.worker(storage="memory")).ready()
    shared_tasks.lease = 7.0
    with pytest.raises(StreamMismatchError, match=r"wanted ack_wait=7\d+; found ack_wait=2\d+"):
        await shared_tasks.caller(storage="memory").enqueue(os.getpid)


async def test_a_result_read_before_the_ack_arrives_is_deleted_afterwards(
    tasks: TaskFleet, notes: Notes
) -> None:
    """The worker died between the outcome and its ack: the message comes again, and then the outcome goes."""
    tasks.lease = 4.0
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handle = await pool(task_jobs.work).options(keep_result=False).enqueue(notes.path, "x")
        connection = ledger.js.connection
        await connection.subscribe("own.hold", lambda message: None)
        ask = f"{API}CONSUMER.MSG.NEXT.{ledger.subjects.tasks_stream}.normal"
        await connection.publish(ask, b"1", "own.hold")
        await reach(ledger.unacknowledged)
        body, _ = dumps("x")
        where = ledger.subjects.task("normal", None, handle.id)
        settled = Record(TaskState.COMPLETED, 1.0, attempts=1, keep=False, task=where)
        await ledger.store.save(handle.id, settled, encode(Frame(FrameKind.REPLY, body=body)), expected=0)
        await tasks.worker()
        assert await handle.result(timeout=5) == "x"
        assert await ledger.queued() == 1

        async def gone() -> bool:
            return await ledger.store.load(handle.id) is None

        await reach(gone, 15)
        assert await ledger.queued() == 0
        assert notes.lines() == []
