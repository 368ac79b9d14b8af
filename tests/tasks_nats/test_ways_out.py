"""Nobody waits for ever: watchers of a closed pool, callers of unreadable tasks, listeners of twins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from genro_nats import NatsExecutor, TaskStatus
from genro_nats.errors import ConfigurationError, ExecutorClosedError, TaskError, TaskFailedError
from genro_nats.testing import WorkerFactory
from genro_nats.testing.suite import samples


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def pool(nats_worker: WorkerFactory) -> AsyncIterator[NatsExecutor]:
    nats_worker("out", max_workers=1, spares=1)
    async with NatsExecutor("out", **{**nats_worker.shared, "subject": "out"}) as pool:
        yield pool


async def inside(pool: NatsExecutor) -> Any:
    """The backend behind the relay."""
    relay: Any = pool.task_backend
    return (await relay._settle()).engine.tasks


@pytest.mark.anyio
async def test_a_watch_ends_with_its_pool(pool: NatsExecutor) -> None:
    task = await pool(samples.add).options(delay=60).enqueue(1)
    seen: list[TaskStatus] = []

    async def watch() -> None:
        async for status in task.watch():
            seen.append(status)

    watching = asyncio.ensure_future(watch())
    async with asyncio.timeout(10):
        while not seen:
            await asyncio.sleep(0.01)
        await pool.aclose()
        with pytest.raises(ExecutorClosedError):
            await watching


@pytest.mark.anyio
async def test_a_task_that_nobody_can_read_fails(pool: NatsExecutor) -> None:
    await pool(samples.add).enqueue(1)
    tasks = await inside(pool)
    where = tasks._subjects.task("normal", None, "garbled")
    await tasks._submitter._publisher.publish(where, b"no frame", msg_id="garbled")
    with pytest.raises(TaskFailedError, match="unreadable"):
        await pool.task("garbled").result(10)
    assert [status.id async for status in pool.tasks(state="failed")] == ["garbled"]


@pytest.mark.anyio
async def test_a_listener_of_a_task_that_was_there_is_let_go(pool: NatsExecutor) -> None:
    listening = pool(samples.add).options(key="twin", delay=60, on_progress=print)
    first = await listening.enqueue(1)
    assert (await listening.enqueue(1)).id == first.id
    assert list((await inside(pool))._outcomes._entries) == [first.id]


@pytest.mark.anyio
async def test_a_replay_leaves_the_key_to_who_has_it(pool: NatsExecutor) -> None:
    failed = await pool(samples.negative).options(key="mine").enqueue(-1)
    with pytest.raises(ValueError, match="negative"):
        await failed.result(10)
    holder = await pool(samples.add).options(key="mine", delay=60).enqueue(1)
    with pytest.raises(TaskError, match="'mine'"):
        await pool.dead.replay(failed.id)
    assert [letter.id for letter in await pool.dead.list()] == [failed.id]
    assert await holder.cancel()
    async with asyncio.timeout(10):
        replayed = await pool.dead.replay(failed.id)
    with pytest.raises(ValueError, match="negative"):
        await replayed.result(10)


@pytest.mark.anyio
async def test_a_time_that_never_comes_is_named(pool: NatsExecutor) -> None:
    with pytest.raises(ConfigurationError, match="0 3 30 2"):
        await pool(samples.add).schedule("never", cron="0 3 30 2 *", args=(1,))
