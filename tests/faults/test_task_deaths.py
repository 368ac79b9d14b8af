"""Durable tasks whose child, worker, all workers or caller are killed: rerun, and settled once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from genro_nats import TaskHandle
from genro_nats.errors import TaskFailedError
from genro_nats.tasks.status import TaskState
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Notes, until
from tests.faults.durable import LEASE, Ledger, TaskFleet, reach

pytestmark = pytest.mark.anyio


async def test_a_killed_child_s_task_is_rerun_at_once(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    shared_tasks.lease = 60.0  # so that it is not the lease that brings it back
    worker = await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.show_pid, notes.path, str(tmp_path / "release"))
        pid = int((await notes.wait())[0].split()[0])
        os.kill(pid, signal.SIGKILL)
        begin = time.monotonic()
        await notes.wait(2)
        assert time.monotonic() - begin < 10  # not the lease
        (tmp_path / "release").touch()
        assert await task.result(timeout=10) == "attempt 2"
        assert await ledger.check([task.id]) == {"completed": 1}
        record = await ledger.outcome(task.id)
        assert (record.attempts, record.deaths) == (2, 1)
        assert worker.count("task.again") == 1


@pytest.mark.parametrize("lease", [LEASE, 10.0])
async def test_a_killed_worker_s_tasks_are_rerun_within_the_lease(
    lease: float, shared_tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    shared_tasks.lease = lease
    first = await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        release = str(tmp_path / "release")
        tasks = [await pool.enqueue(task_jobs.show_pid, notes.path, release) for _ in range(2)]
        await notes.wait(2)
        for task in tasks:
            await reach(lambda task=task: _claimed(ledger, task.id))  # type: ignore[misc]
        await shared_tasks.worker()
        first.signal(signal.SIGKILL)
        begin = time.monotonic()
        await notes.wait(4, lease + 5)
        assert time.monotonic() - begin < lease + 2.5  # and what a busy machine adds
        (tmp_path / "release").touch()
        assert [await task.result(timeout=10) for task in tasks] == ["attempt 2", "attempt 2"]
        assert await ledger.check(task.id for task in tasks) == {"completed": 2}
        assert [(await ledger.outcome(task.id)).deaths for task in tasks] == [1, 1]


async def _claimed(ledger: Ledger, id: str) -> bool:
    stored = await ledger.store.load(id)
    return stored is not None and stored.record.state is TaskState.RUNNING


async def test_all_workers_are_killed_and_new_ones_come(shared_tasks: TaskFleet, notes: Notes) -> None:
    workers = [await shared_tasks.worker() for _ in range(2)]
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        tasks = await pool(task_jobs.work_item).enqueue_many([(notes.path, n, 0.02) for n in range(200)])
        ids = [task.id for task in tasks]
        results = asyncio.gather(*(task.result(timeout=40) for task in tasks))
        await notes.wait(60)
        for worker in workers:
            worker.signal(signal.SIGKILL)
        for worker in workers:
            await worker.ended()
        assert await ledger.queued() > 0
        await shared_tasks.worker()
        assert sorted(await results) == list(range(200))
        assert await ledger.check(ids) == {"completed": 200}
    counts = notes.counts()
    assert len(counts) == 200
    assert sum(counts.values()) <= 200 + 4 * 16  # only what they had in hand ran again
    assert max(counts.values()) <= 2


async def test_three_deaths_of_the_child_are_enough(shared_tasks: TaskFleet, notes: Notes) -> None:
    await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task: TaskHandle[Any] = await pool(task_jobs.kill_child).options(retries=5).enqueue(notes.path)
        with pytest.raises(TaskFailedError, match="died 3 times"):
            await task.result(timeout=15)
        assert len(notes.lines()) == 3
        letter = next(letter for letter in await pool.dead.list() if letter.id == task.id)
        assert (letter.deaths, letter.attempts) == (3, 3)
        assert await ledger.check([task.id]) == {"failed": 1}


@pytest.mark.parametrize("after", [0.0, 0.3])
async def test_three_deaths_of_the_worker_are_enough(
    after: float, shared_tasks: TaskFleet, notes: Notes
) -> None:
    """One that takes its worker along within milliseconds had not been claimed: that death is not seen."""
    pool = shared_tasks.caller()
    worker = await shared_tasks.worker(max_workers=1)
    async with shared_tasks.ledger() as ledger:
        task: TaskHandle[Any] = await pool.enqueue(task_jobs.kill_worker, notes.path, after)
        failed = asyncio.create_task(task.result(timeout=40))
        while not failed.done():
            await until(lambda w=worker: w.process.poll() is not None or failed.done(), 20)  # type: ignore[misc]
            worker = worker if failed.done() else await shared_tasks.worker(max_workers=1)
        with pytest.raises(TaskFailedError, match="died 3 times"):
            await failed
        assert len(notes.lines()) in ((3,) if after else (3, 4))
        letter = next(letter for letter in await pool.dead.list() if letter.id == task.id)
        assert (letter.deaths, letter.attempts) == (3, 3)
        assert await ledger.check([task.id]) == {"failed": 1}
        # Whoever it did not reach serves on.
        assert await (await pool.enqueue(jobs.pid)).result(timeout=10)


async def test_a_dead_worker_s_task_can_be_cancelled(shared_tasks: TaskFleet, notes: Notes) -> None:
    worker = await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.work, notes.path, "once", 60)
        await notes.wait()
        await reach(lambda: _claimed(ledger, task.id))
        worker.signal(signal.SIGKILL)
        await worker.ended()
        cancelling = asyncio.create_task(task.cancel())
        await shared_tasks.worker()
        assert await cancelling
        assert await ledger.check([task.id]) == {"cancelled": 1}
        assert len(notes.lines()) == 1


@pytest.mark.parametrize("delay", [None, 0.2])
async def test_cancelled_while_no_worker_was_there(
    delay: float | None, shared_tasks: TaskFleet, notes: Notes
) -> None:
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool(task_jobs.work).options(delay=delay).enqueue(notes.path, "never")
        other = await pool.enqueue(task_jobs.work, notes.path, "other")
        cancelling = asyncio.create_task(task.cancel())

        async def asked() -> bool:
            return await ledger.store.noted("ask", "cancel", task.id) is not None

        await reach(asked)
        await shared_tasks.worker()
        assert await cancelling
        assert await other.result(timeout=10) == "other"
        assert await ledger.check([task.id, other.id]) == {"cancelled": 1, "completed": 1}
        assert notes.lines() == ["other"]
