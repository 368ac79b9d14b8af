"""Pools that end, loops that end, and callers of every sort: no task hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
import weakref
from typing import Any

import anyio
import pytest

from genro_nats import (
    ExecutorClosedError,
    ExecutorRegistry,
    ProcessExecutor,
    TaskCancelledError,
    TaskState,
    ThreadExecutor,
)
from genro_nats.executor.local_tasks.backend import LocalTasks
from genro_nats.testing.conformance import Marks, until
from genro_nats.testing.suite import samples
from tests.tasks_local import jobs
from tests.tasks_local.conftest import Make

pytestmark = pytest.mark.anyio
KINDS = ("inline", "thread", "async", "process", "async-process")


@pytest.fixture
def marks(tmp_path: Any) -> Marks:
    return Marks(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_finishes_what_runs_and_cancels_what_waits(
    make: Make, marks: Marks, kind: str
) -> None:
    pool = make(kind, concurrency=1)
    running = await pool(samples.hold_async).options(delay=0.001).enqueue(marks.path)
    await marks.begun()
    pending = await pool(samples.note).options(delay=0.002).enqueue(marks.path, "pending")
    await until(lambda: _state(pool, pending.id) is TaskState.PENDING)
    delayed = await pool(samples.note).options(delay=60).enqueue(marks.path, "delayed")
    async with anyio.create_task_group() as group:
        group.start_soon(pool.shutdown)
        for task in (pending, delayed):
            with pytest.raises(TaskCancelledError, match="'pool', which kept it in memory, was shut down"):
                await task.result(timeout=10)
        assert (await running.status()).state is TaskState.RUNNING
        with pytest.raises(ExecutorClosedError):
            await pool(samples.add).enqueue(1)
        marks.release()
    assert await running.result(timeout=5) == "call"
    assert not marks.has("order")
    await pool.start()
    assert await (await pool(samples.add).options(delay=0.001).enqueue(1)).result(timeout=10) == 2
    assert await running.result() == "call"


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_without_waiting_ends_what_runs(make: Make, marks: Marks, kind: str) -> None:
    pool = make(kind)
    running = await pool(samples.hold_async).options(delay=0.001, retries=5).enqueue(marks.path)
    await marks.begun()
    with anyio.fail_after(10):
        await pool.shutdown(wait=False)
    with pytest.raises(TaskCancelledError, match="shut down"):
        await running.result(timeout=10)
    assert (await running.status()).state is TaskState.CANCELLED


async def test_shutdown_wakes_those_who_wait_for_room(make: Make, marks: Marks) -> None:
    pool = make("thread", max_queued=1)
    for _ in range(2):
        await pool(samples.hold_async).enqueue(marks.path)
        await marks.begun()
    failed: list[Exception] = []

    async def enqueue() -> None:
        with contextlib.suppress(ExecutorClosedError):
            await pool(samples.add).enqueue(1)
            raise AssertionError("it was let in")
        failed.append(ExecutorClosedError())

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(enqueue)
        await until(lambda: len(_backend(pool)._store.room._line) == 3)
        group.start_soon(pool.shutdown)
        await until(lambda: len(failed) == 3)
        marks.release()


async def test_schedules_rest_while_the_pool_is_closed(make: Make, marks: Marks) -> None:
    pool = make("thread")
    await pool(samples.note).schedule("tick", every=1, args=(marks.path, "tick"))
    await pool.shutdown()
    await anyio.sleep(1.2)  # past the time of its first run
    assert not marks.has("order")
    await pool.start()
    assert [schedule.name async for schedule in pool.schedules()] == ["tick"]
    await until(lambda: marks.has("order"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_outlives_the_loop_that_enqueued_it(tmp_path: Any, kind: str) -> None:
    pool = ExecutorRegistry().executor(kind, name="pool", max_workers=1)
    marks = Marks(tmp_path)

    async def enqueue() -> str:
        task = await pool(samples.hold_async).options(delay=0.001).enqueue(marks.path)
        await marks.begun()
        return task.id

    id = asyncio.run(enqueue())
    marks.release()

    async def finish() -> None:
        assert await pool.task(id).result(timeout=10) == "call"
        # The children lived in the first loop: with it the first attempt ended.
        assert (await pool.task(id).status()).attempts == (2 if "process" in kind else 1)
        await pool.aclose()

    asyncio.run(finish())


def test_a_task_outlives_a_loop_that_is_closed_without_a_word(tmp_path: Any) -> None:
    pool = ProcessExecutor("pool", max_workers=1, spares=0)
    marks = Marks(tmp_path)
    loop = asyncio.new_event_loop()

    async def enqueue() -> str:
        task = await pool(samples.hold_async).enqueue(marks.path)
        await marks.begun()
        return task.id

    id = loop.run_until_complete(enqueue())
    loop.close()
    marks.release()

    async def finish() -> None:
        assert await pool.task(id).result(timeout=10) == "call"
        await pool.aclose()

    asyncio.run(finish())
    del loop
    gc.collect()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_from_trio(tmp_path: Any, kind: str) -> None:
    async def main() -> None:
        pool = ExecutorRegistry().executor(kind, name="pool", max_workers=1)
        marks = Marks(tmp_path)
        task = await pool(samples.report_and_hold).enqueue(marks.path)
        await marks.begun()
        marks.release()
        seen = [status.state async for status in task.watch()]
        assert seen[-1] is TaskState.COMPLETED
        assert await task.result() == "call"
        await pool.aclose()

    anyio.run(main, backend="trio")


async def test_two_loops_share_tasks(make: Make, marks: Marks) -> None:
    pool = make("process")
    task = await pool(samples.hold_async).enqueue(marks.path)
    await marks.begun()

    def elsewhere() -> str:
        async def main() -> str:
            marks.release()
            other = await pool(samples.add).enqueue(3)
            assert await other.result(timeout=10) == 4
            return str(await pool.task(task.id).result(timeout=10))

        return asyncio.run(main())

    assert await anyio.to_thread.run_sync(elsewhere) == "call"


async def test_tasks_and_calls_share_the_books(make: Make) -> None:
    pool = make("thread", max_pending=2, overload="fail")
    tasks = await pool(samples.add).enqueue_many(range(20))
    assert [await task.result(timeout=10) for task in tasks] == list(range(1, 21))
    facts = pool.metrics
    assert (facts["submitted"], facts["completed"], facts["failed"], facts["rejected"]) == (20, 20, 0, 0)


async def test_a_task_waits_where_a_call_would_be_refused(make: Make, marks: Marks) -> None:
    pool = make("async", max_pending=1, overload="fail")
    async with anyio.create_task_group() as group:
        group.start_soon(pool.submit, samples.hold_async, marks.path)
        await marks.begun()
        task = await pool(samples.add).enqueue(1)
        await until(lambda: pool.metrics["waiting"] == 1)
        assert (await task.status()).state is TaskState.PENDING
        gone = await pool(samples.add).enqueue(5)
        assert await gone.cancel()
        marks.release()
        assert await task.result(timeout=10) == 2


async def test_cancelling_one_that_waits_for_admission(make: Make, marks: Marks) -> None:
    pool = make("async", max_pending=1)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.submit, samples.hold_async, marks.path)
        await marks.begun()
        task = await pool(samples.note).enqueue(marks.path, "task")
        await until(lambda: pool.metrics["waiting"] == 1)
        assert await task.cancel(timeout=5)
        await until(lambda: pool.metrics["waiting"] == 0)
        marks.release()
    assert not marks.has("order")


async def test_an_idle_pool_that_is_dropped_takes_its_thread_with_it() -> None:
    pool = ThreadExecutor("dropped", max_workers=1)
    task = await pool(samples.add).enqueue(1)
    assert await task.result(timeout=10) == 2
    gone = weakref.ref(pool)
    name = "genro-nats-tasks-dropped"
    assert name in {thread.name for thread in threading.enumerate()}
    del pool, task

    def ended() -> bool:
        gc.collect()
        return gone() is None and name not in {thread.name for thread in threading.enumerate()}

    await until(ended)


async def test_cancelling_enqueue_leaves_no_half(make: Make, marks: Marks) -> None:
    """Kind inline runs the task inside enqueue: it goes on when its caller leaves."""
    pool = make("inline")
    with anyio.move_on_after(0.05):
        await pool(samples.hold_async).options(id="left").enqueue(marks.path)
    assert (await pool.task("left").status()).state is TaskState.RUNNING
    marks.release()
    assert await pool.task("left").result(timeout=10) == "call"


async def test_a_forked_process_keeps_tasks_of_its_own(make: Make) -> None:
    pool = make("inline")
    task = await pool(samples.add).enqueue(1)
    backend = _backend(pool)
    backend._clock.pid = os.getpid() + 1  # as it looks from a child process
    assert pool.task_backend is not backend
    with pytest.raises(Exception, match="No task"):
        await pool.task(task.id).status()


def _backend(pool: Any) -> LocalTasks:
    backend = pool.task_backend
    assert isinstance(backend, LocalTasks)
    return backend


def _state(pool: Any, id: str) -> TaskState:
    return _backend(pool)._store.get(id).status.state


async def test_a_thread_that_does_not_end_holds_up_nothing_but_itself(make: Make) -> None:
    pool = make("thread", max_workers=1, cancel_grace=0.1)
    jobs.events["stuck"] = threading.Event()
    task = await pool(jobs.wait_for).enqueue("stuck")
    await until(lambda: _state(pool, task.id) is TaskState.RUNNING)
    begun = time.monotonic()
    assert await task.cancel(timeout=5)
    assert time.monotonic() - begun < 4
    jobs.events["stuck"].set()
    assert await (await pool(samples.add).enqueue(1)).result(timeout=10) == 2
