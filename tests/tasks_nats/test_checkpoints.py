"""Checkpoints: kept as long as the task is not settled, whatever its result_ttl, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from genro_nats import NatsExecutor, current_call
from genro_nats.errors import Retry
from genro_nats.testing import WorkerFactory


def leave_a_mark(delay: float) -> Any:
    """The first attempt leaves a mark and asks for another."""
    call = current_call()
    if call.attempt == 1:
        call.checkpoint("mark")
        raise Retry(delay=delay)
    return call.checkpointed


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def pool(nats_worker: WorkerFactory) -> AsyncIterator[NatsExecutor]:
    nats_worker("marks", max_workers=1, spares=1)
    async with NatsExecutor("marks", **{**nats_worker.shared, "subject": "marks"}) as pool:
        yield pool


async def notes(pool: NatsExecutor, id: str) -> list[str]:
    """What is noted of a task in its stream."""
    from genro_nats.executor.homed_tasks import HomedTasks

    backend = pool.task_backend
    assert isinstance(backend, HomedTasks)
    store: Any = (await backend._settle()).engine.tasks._store  # type: ignore[attr-defined]
    return [what for what in ("progress", "checkpoint") if await store.noted("note", what, id) is not None]


@pytest.mark.anyio
async def test_a_checkpoint_outlives_the_time_of_outcomes(pool: NatsExecutor) -> None:
    task = await pool(leave_a_mark).options(retries=1, result_ttl=1).enqueue(2.2)
    assert await task.result(10) == "mark"


@pytest.mark.anyio
async def test_a_settled_task_has_none(pool: NatsExecutor) -> None:
    done = await pool(leave_a_mark).options(retries=1).enqueue(0.0)
    failed = await pool(leave_a_mark).enqueue(0.0)
    waiting = await pool(leave_a_mark).options(retries=1).enqueue(60.0)
    assert await done.result(10) == "mark"
    with pytest.raises(Retry):
        await failed.result(10)
    async with asyncio.timeout(10):
        while await notes(pool, waiting.id) != ["checkpoint"]:
            await asyncio.sleep(0.02)
    assert await waiting.cancel()
    for task in (done, failed, waiting):
        async with asyncio.timeout(10):
            while await notes(pool, task.id):
                await asyncio.sleep(0.02)
