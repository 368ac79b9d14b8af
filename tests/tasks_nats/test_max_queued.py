"""``max_queued``: what one caller stores at the same time counts too."""

from __future__ import annotations

import asyncio

import pytest

from genro_nats import NatsExecutor
from genro_nats.errors import ExecutorOverloadError
from genro_nats.testing import WorkerFactory
from genro_nats.testing.suite import samples


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pool_of(factory: WorkerFactory, subject: str, **options: object) -> NatsExecutor:
    return NatsExecutor("full", **{**factory.shared, "subject": subject, "max_queued": 10, **options})


LOOK = 64  # tasks by which a caller may go beyond it: what a consumer says can be a moment old


async def queued(pool: NatsExecutor) -> int:
    return len([status async for status in pool.tasks(state="pending", limit=2000)])


@pytest.mark.anyio
async def test_many_at_once_do_not_go_beyond_it(nats_worker: WorkerFactory) -> None:
    async with pool_of(nats_worker, "full.many", overload="fail") as pool:
        with pytest.raises(ExecutorOverloadError) as caught:
            await pool(samples.add).enqueue_many(range(1000))
        assert 10 <= len(caught.value.stored) <= 10 + LOOK
        assert await queued(pool) == len(caught.value.stored)


@pytest.mark.anyio
async def test_concurrent_ones_do_not_go_beyond_it(nats_worker: WorkerFactory) -> None:
    async with pool_of(nats_worker, "full.beside", overload="fail") as pool:
        add = pool(samples.add)
        outcomes = await asyncio.gather(*(add.enqueue(n) for n in range(1000)), return_exceptions=True)
        refused = sum(isinstance(outcome, ExecutorOverloadError) for outcome in outcomes)
        assert 10 <= 1000 - refused <= 10 + LOOK
        assert await queued(pool) == 1000 - refused


@pytest.mark.anyio
async def test_many_wait_for_room(nats_worker: WorkerFactory) -> None:
    async with pool_of(nats_worker, "full.wait") as pool:
        storing = asyncio.ensure_future(pool(samples.add).enqueue_many(range(50)))
        async with asyncio.timeout(10):
            while await queued(pool) < 10:
                await asyncio.sleep(0.02)
        assert not storing.done()
        nats_worker("full.wait", max_workers=1, spares=1)
        async with asyncio.timeout(20):
            tasks = await storing
            assert [await task.result() for task in tasks] == [n + 1 for n in range(50)]


@pytest.mark.anyio
async def test_a_full_pool_still_gives_the_task_that_has_the_key(nats_worker: WorkerFactory) -> None:
    async with pool_of(nats_worker, "full.key", overload="fail", max_queued=1) as pool:
        keyed = pool(samples.add).options(key="k")
        first = await keyed.enqueue(1)
        assert (await keyed.enqueue(1)).id == first.id
