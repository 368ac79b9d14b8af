"""Many tasks of mixed fates, from several threads: each is settled once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from typing import Any

import anyio
import pytest

from genro_nats import TaskState
from genro_nats.executor.local_tasks.record import Record
from genro_nats.executor.local_tasks.watch import LocalWatch
from genro_nats.message import ProgressUpdate
from genro_nats.testing.conformance import until
from tests.tasks_local import jobs
from tests.tasks_local.conftest import Make

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["thread", "async", "process", "async-process"])
async def test_each_settles_once(make: Make, kind: str) -> None:
    pool = make(kind, max_workers=2, max_queued=20, cancel_grace=0.05)
    settled: Counter[str] = Counter()
    states: dict[str, TaskState] = {}
    lock = threading.Lock()
    deadly = "process" in kind

    async def one(seed: int) -> None:
        draw = random.Random(seed)
        fate = pool(jobs.fate).options(retries=2, backoff=0.001, delay=draw.choice([0, 0.01]))
        task = await fate.enqueue(draw.random(), deadly)
        if draw.random() < 0.2:
            await asyncio.sleep(draw.random() / 20)
            await task.cancel(timeout=20)
        with anyio.fail_after(30):
            last = [status async for status in task.watch()][-1]
        assert last == await task.status()
        with lock:
            settled[task.id] += 1
            states[task.id] = last.state

    def thread(first: int) -> None:
        async def main() -> None:
            await asyncio.gather(*(one(first + n) for n in range(40)))

        asyncio.run(main())

    async with anyio.create_task_group() as group:
        for first in (0, 1000):
            group.start_soon(anyio.to_thread.run_sync, thread, first)
        for seed in range(2000, 2040):
            group.start_soon(one, seed)
    assert len(settled) == 120
    assert set(settled.values()) == {1}
    assert set(states.values()) == {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}
    await until(lambda: pool.metrics["pending"] == 0)
    backend: Any = pool.task_backend
    assert not backend._attempts._running
    assert not backend._store.room
    assert not backend._store.waiting


async def test_progress_that_nobody_takes_is_not_piled_up(make: Make) -> None:
    pool = make("thread")
    task = await pool(jobs.who).options(delay=60).enqueue()
    backend: Any = pool.task_backend
    record: Record = backend._store.get(task.id)
    watch = LocalWatch(record)
    for number in range(1000):
        backend._store.progress(record, ProgressUpdate(number / 1000))
    assert len(watch._waiting) == 1
    progress = (await watch.receive()).progress
    assert progress is not None
    assert progress.fraction == 0.999
    await watch.aclose()
    assert record.watchers == []
    with pytest.raises(StopAsyncIteration):
        await watch.receive()


async def test_what_is_over_holds_no_arguments(make: Make) -> None:
    pool = make("thread")
    task = await pool(jobs.size).enqueue(b"x" * 1000)
    assert await task.result(timeout=10) == 1000
    backend: Any = pool.task_backend
    assert backend._store.get(task.id).request.call.args == ()
