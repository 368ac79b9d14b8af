"""Ids of the caller's own: the same one again, and once the first task is forgotten, anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from genro_nats import NatsExecutor
from genro_nats.errors import TaskCancelledError, TaskNotFoundError
from genro_nats.tasks.handle import TaskHandle
from genro_nats.testing import WorkerFactory
from genro_nats.testing.suite import samples


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def pool(nats_worker: WorkerFactory) -> AsyncIterator[NatsExecutor]:
    nats_worker("ids", max_workers=1, spares=1)
    async with NatsExecutor("ids", **{**nats_worker.shared, "subject": "ids"}) as pool:
        yield pool


async def forgotten(task: TaskHandle[int]) -> None:
    """Wait until nothing is known of it."""
    async with asyncio.timeout(10):
        while True:
            try:
                await task.status()
            except TaskNotFoundError:
                return
            await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_an_id_whose_outcome_was_read_and_deleted_can_be_used_again(pool: NatsExecutor) -> None:
    once = pool(samples.add).options(id="once", keep_result=False)
    task = await once.enqueue(1)
    assert await task.result(10) == 2
    await forgotten(task)
    task = await pool(samples.add).options(id="once").enqueue(2)
    assert (await task.status()).id == "once"
    assert await task.result(10) == 3


@pytest.mark.anyio
async def test_an_id_is_free_as_soon_as_its_outcome_was_read(pool: NatsExecutor) -> None:
    """Though workers delete it a moment later: who enqueues then gets a task, and its own outcome."""
    once = pool(samples.add).options(id="daily", keep_result=False)
    for n in range(10):
        assert await (await once.enqueue(n)).result(10) == n + 1
    later = await pool(samples.add).options(id="daily", delay=60).enqueue(1)
    assert await later.cancel(10)
    with pytest.raises(TaskCancelledError):
        await later.result(10)


@pytest.mark.anyio
async def test_an_id_that_another_one_uses_again(pool: NatsExecutor) -> None:
    once = pool(samples.add).options(id="shared", keep_result=False)
    task = await once.enqueue(1)
    assert await task.result(10) == 2
    await forgotten(task)
    async with NatsExecutor("other", **pool_options(pool)) as other:
        await other(samples.add).options(id="shared").enqueue(2)
        assert await task.result(10) == await other.task("shared").result(10) == 3


@pytest.mark.anyio
async def test_an_id_that_was_cancelled_can_be_used_again(pool: NatsExecutor) -> None:
    task = await pool(samples.add).options(id="again", delay=60, result_ttl=1).enqueue(1)
    assert await task.cancel()
    await forgotten(task)
    task = await pool(samples.add).options(id="again").enqueue(2)
    assert await task.result(10) == 3


@pytest.mark.anyio
async def test_ids_that_differ_by_spaces_are_different(pool: NatsExecutor) -> None:
    tasks = [await pool(samples.add).options(id=id).enqueue(n) for n, id in enumerate(("x", " x", "x "))]
    assert [await task.result(10) for task in tasks] == [1, 2, 3]


def pool_options(pool: NatsExecutor) -> dict[str, object]:
    options = pool.options
    return {name: getattr(options, name) for name in ("url", "user", "password", "prefix", "subject")}
