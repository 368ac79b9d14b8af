"""``memory_limit``: no new calls at 80 %, the end at 95 %, and what callers see of it."""

from __future__ import annotations

import asyncio

import pytest

from genro_nats import ConfigurationError, MemoryLimitError, ProcessExecutor, TaskFailedError
from genro_nats.executor.children.memory import Share, share
from tests.faults.conftest import Fleet, children, roster, until
from tests.faults.durable import TaskFleet
from tests.worker_life import jobs

pytestmark = pytest.mark.anyio

LIMIT = 200_000_000
HIGH = 140  # MiB that together with a child's own 20 are more than 80 % of it, and less than 95 %
OVER = 400


@pytest.mark.parametrize(
    ("used", "found"),
    [
        (0, Share.FINE),
        (79, Share.FINE),
        (80, Share.HIGH),
        (94, Share.HIGH),
        (95, Share.OVER),
        (500, Share.OVER),
    ],
)
def test_shares(used: int, found: Share) -> None:
    assert share(used, 100) is found


async def test_over_the_limit_ends_the_call_by_name(anyio_backend: str) -> None:
    async with ProcessExecutor("p", max_workers=1, memory_limit=LIMIT) as pool:
        with pytest.raises(MemoryLimitError, match=r"hold.*200 MB \(memory_limit.*Raise the limit") as caught:
            await asyncio.wait_for(pool.submit(jobs.hold, OVER, 60.0), 20)
        assert caught.value.limit == LIMIT
        assert caught.value.used >= 0.95 * LIMIT
        assert caught.value.pid and caught.value.exitcode == -9
        assert await asyncio.wait_for(pool.submit(jobs.hold, 1), 10) != caught.value.pid


async def test_near_the_limit_it_gets_no_new_calls(anyio_backend: str) -> None:
    async with ProcessExecutor("p", max_workers=1, threads=4, memory_limit=LIMIT) as pool:
        holding = asyncio.create_task(pool.submit(jobs.hold, HIGH, 2.0))
        await until(lambda: roster(pool).active and roster(pool).active[0].crowded)
        waiting = asyncio.create_task(pool.submit(jobs.hold, 0))
        # The call that fills it ends well. It let go of the memory, so the child goes on.
        pid = await asyncio.wait_for(holding, 10)
        assert not waiting.done()
        assert await asyncio.wait_for(waiting, 10) == pid
        assert not roster(pool).active[0].crowded


async def test_what_is_kept_ends_the_child_once_it_is_idle(anyio_backend: str) -> None:
    async with ProcessExecutor("p", max_workers=1, memory_limit=LIMIT) as pool:
        first = await asyncio.wait_for(pool.submit(jobs.hold, HIGH, 1.0, keep=True), 10)
        second = await asyncio.wait_for(pool.submit(jobs.hold, 0), 10)
        assert second != first
        assert children(pool) == [second]


async def test_a_limit_below_the_imports_is_refused(anyio_backend: str) -> None:
    with pytest.raises(ConfigurationError, match=r"before its first call.*raise memory_limit"):
        async with ProcessExecutor("p", max_workers=1, memory_limit=5_000_000) as pool:
            await pool.start()


async def test_over_nats_the_error_has_its_facts(shared_fleet: Fleet) -> None:
    worker = await shared_fleet.worker(memory_limit=LIMIT)
    with pytest.raises(MemoryLimitError) as caught:
        await asyncio.wait_for(shared_fleet.caller().submit(jobs.hold, OVER, 60.0), 20)
    assert caught.value.limit == LIMIT
    assert worker.count("child.overfull") == 1


async def test_for_a_task_it_is_a_death(shared_tasks: TaskFleet) -> None:
    worker = await shared_tasks.worker(memory_limit=LIMIT)
    task = await shared_tasks.caller()(jobs.hold).enqueue(OVER, 60.0)
    with pytest.raises(TaskFailedError, match="memory_limit"):
        await task.result(timeout=60)
    assert (await task.status()).attempts == 3
    assert worker.count("child.overfull") == 3
