"""The memory pool: nothing runs before the test says so, and always in the same order."""

from __future__ import annotations

import threading

import anyio
import pytest

from genro_nats import CallTimeoutError, CodecError, ExecutorClosedError, ExecutorError, ExecutorRegistry
from genro_nats.testing import MemoryExecutor, memory_registry
from genro_nats.testing.conformance import Running, until
from genro_nats.testing.suite import samples

pytestmark = pytest.mark.anyio


async def test_calls_wait_for_the_test() -> None:
    pool = MemoryExecutor("mail")
    async with anyio.create_task_group() as group:
        call = Running(group, pool.submit, samples.add, 1)
        (held,) = await pool.wait_pending()
        assert held.function == f"{samples.__name__}:add"
        assert (pool.metrics["pending"], pool.metrics["completed"]) == (1, 0)
        assert not call.ended
        assert await pool.run_next() is held
        assert await call.result() == 2
    assert pool.pending == ()
    await pool.aclose()


async def order_with(seed: int | None) -> list[int]:
    ran: list[int] = []
    pool = MemoryExecutor("mail", seed=seed)
    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(pool.submit, lambda n=n: n)
            await pool.wait_pending(n + 1)
        ids = [held.id for held in pool.pending]
        while pool.pending:
            ran.append(ids.index((await pool.run_next()).id))
    return ran


async def test_the_order_is_that_of_arrival_or_of_the_seed() -> None:
    assert await order_with(None) == list(range(8))
    shuffled = await order_with(7)
    assert sorted(shuffled) == list(range(8))
    assert shuffled != list(range(8))
    assert await order_with(7) == shuffled
    assert await order_with(8) != shuffled


async def test_run_all_runs_what_comes_meanwhile() -> None:
    pool = MemoryExecutor("mail")

    async def two() -> int:
        return int(await pool.submit(samples.add, await pool.submit(samples.add, 1)))

    async with anyio.create_task_group() as group:
        call = Running(group, two)
        await pool.wait_pending()
        while not call.ended:
            await pool.run_all()
            await anyio.sleep(0)
        assert await call.result() == 3


async def test_what_does_not_travel_fails_here_too() -> None:
    pool = MemoryExecutor("mail")
    with pytest.raises(CodecError, match="argument 'value'"):
        await pool.submit(samples.echo, threading.Lock())
    assert pool.pending == ()
    async with anyio.create_task_group() as group:
        call = Running(group, pool.submit, samples.make_lock)
        await pool.run_next()
        with pytest.raises(CodecError, match="result of"):
            await call.result()


async def test_a_caller_that_leaves_takes_its_call_along() -> None:
    pool = MemoryExecutor("mail")
    with pytest.raises(CallTimeoutError):
        await pool(timeout=0.02)(samples.add)(1)
    async with anyio.create_task_group() as group:
        call = Running(group, pool.submit, samples.add, 1)
        await pool.wait_pending()
        await call.cancel()
    assert pool.pending == ()
    with pytest.raises(ExecutorError, match=r"holds 0 calls after 0\.02 s"):
        await pool.run_next(timeout=0.02)


async def test_shutdown_runs_or_ends_what_is_held() -> None:
    for wait in (True, False):
        pool = MemoryExecutor("mail")
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.add, 1)
            await pool.wait_pending()
            await pool.shutdown(wait=wait)
            if wait:
                assert await call.result() == 2
            else:
                with pytest.raises(ExecutorClosedError):
                    await call.result()


async def test_a_stream_is_held_too() -> None:
    pool = MemoryExecutor("mail")
    seen: list[int] = []

    async def read() -> None:
        async for item in pool.stream(samples.numbers, 3):
            seen.append(item)

    async with anyio.create_task_group() as group:
        reading = Running(group, read)
        await pool.wait_pending()
        assert seen == []
        await pool.run_next()
        await reading.result()
    assert seen == [0, 1, 2]


async def test_a_registry_of_them(memory_executors: ExecutorRegistry) -> None:
    pool = memory_executors.executor("nats", name="heavy", subject="tasks.heavy")
    assert isinstance(pool, MemoryExecutor)
    async with anyio.create_task_group() as group:
        call = Running(group, pool(samples.add), 1)
        await pool.run_next()
        assert await call.result() == 2
    assert isinstance(memory_registry(seed=1).executor("memory"), MemoryExecutor)


async def test_blocking_calls_are_held_too() -> None:
    pool = MemoryExecutor("mail")
    async with anyio.create_task_group() as group:
        call = Running(group, anyio.to_thread.run_sync, pool(samples.add).call, 1)
        await until(lambda: bool(pool.pending))
        await pool.run_next()
        assert await call.result() == 2
