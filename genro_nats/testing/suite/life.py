"""Conformance: start and stop."""

from __future__ import annotations

import anyio
import pytest

from genro_nats.errors import ExecutorClosedError
from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, Factory, Marks, Running, SuiteBase

__all__ = ["LifeTests"]


class LifeTests(SuiteBase):
    """Pools start at the first call, end once, and open again."""

    async def test_started_by_the_first_call(self, make: Factory) -> None:
        pool = make()
        assert await pool.submit(samples.add, 1) == 2

    async def test_started_by_concurrent_first_calls(self, make: Factory) -> None:
        pool = make()
        async with anyio.create_task_group() as group:
            calls = [Running(group, pool.submit, samples.add, n) for n in range(8)]
            threads = [Running(group, anyio.to_thread.run_sync, pool(samples.add).call, n) for n in range(4)]
            assert [await call.result() for call in calls] == list(range(1, 9))
            assert [await call.result() for call in threads] == list(range(1, 5))

    async def test_starting_and_closing_twice(self, make: Factory) -> None:
        pool = make()
        await pool.start()
        await pool.start()
        assert await pool.submit(samples.add, 1) == 2
        await pool.aclose()
        await pool.aclose()

    async def test_starting_and_closing_at_the_same_time(self, make: Factory) -> None:
        pool = make()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(pool.start)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(pool.aclose)
        with pytest.raises(ExecutorClosedError):
            await pool.submit(samples.add, 1)

    async def test_closing_what_never_started(self, make: Factory) -> None:
        pool = make()
        await pool.aclose()
        await pool.shutdown(wait=False)

    async def test_a_context_manager(self, make: Factory) -> None:
        async with make() as pool:
            assert await pool.submit(samples.add, 1) == 2
        with pytest.raises(ExecutorClosedError):
            await pool.submit(samples.add, 1)

    async def test_a_closed_pool_refuses_calls_and_opens_again(self, make: Factory) -> None:
        pool = make()
        add, numbers = pool(samples.add), pool(samples.numbers)
        assert await add(1) == 2
        await pool.aclose()
        with pytest.raises(ExecutorClosedError, match=pool.name):
            await add(1)
        with pytest.raises(ExecutorClosedError):
            await anyio.to_thread.run_sync(add.call, 1)
        with pytest.raises(ExecutorClosedError):
            await anext(numbers.stream(3))
        with pytest.raises(ExecutorClosedError):
            await anext(add.map([1]))
        await pool.start()
        assert await add(1) == 2

    async def test_shutdown_finishes_the_calls_in_hand(self, make: Factory, marks: Marks) -> None:
        pool = make()
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.hold_async, marks.path)
            await marks.begun()
            closing = Running(group, pool.shutdown)
            await self.refused(pool)
            assert not closing.ended
            marks.release()
            assert await call.result() == "call"
            await closing.result()

    async def test_shutdown_without_waiting_ends_the_calls_in_hand(self, make: Factory, marks: Marks) -> None:
        self.need(Can.END_SYNC)
        pool = make()
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.hold, marks.path)
            await marks.begun()
            with anyio.fail_after(10):
                await pool.shutdown(wait=False)
            with pytest.raises(ExecutorClosedError):
                await call.result()
            marks.release()

    async def refused(self, pool: BaseExecutor) -> None:
        """Wait until the pool takes no more calls."""
        with anyio.fail_after(10):
            while True:
                try:
                    await pool.submit(samples.add, 1)
                except ExecutorClosedError:
                    return
                await anyio.sleep(0.002)
