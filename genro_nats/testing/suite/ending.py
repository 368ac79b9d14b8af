"""Conformance: deadlines and cancellation."""

from __future__ import annotations

import anyio
import pytest

from genro_nats.errors import CallTimeoutError
from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, Factory, Marks, Running, SuiteBase, until

__all__ = ["EndingTests"]


class EndingTests(SuiteBase):
    """A call that has ended early leaves its pool as it was."""

    async def assert_usable(self, pool: BaseExecutor) -> None:
        """Nothing pends any more, and calls of both sorts work."""
        await until(lambda: pool.metrics["pending"] == 0)
        with anyio.fail_after(10):
            assert await pool.submit(samples.add, 1) == 2
            assert await pool.submit(samples.add_async, 1) == 2

    async def test_the_deadline_of_an_async_function(self, pool: BaseExecutor, marks: Marks) -> None:
        late = pool(timeout=0.2)(samples.hold_async)
        with pytest.raises(CallTimeoutError) as caught:
            await late(marks.path)
        assert caught.value.timeout == 0.2  # as it was stated, however long the pool took to start
        assert "within 0.2 s" in str(caught.value)
        assert isinstance(caught.value, TimeoutError)
        assert pool.metrics["timed_out"] == 1
        await self.assert_usable(pool)

    async def test_the_deadline_of_a_sync_function(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.END_SYNC)
        late = pool(samples.hold).options(timeout=0.2)
        with pytest.raises(CallTimeoutError):
            await late(marks.path)
        marks.release()
        await self.assert_usable(pool)

    async def test_the_deadline_of_every_call_of_a_pool(self, make: Factory, marks: Marks) -> None:
        self.need(Can.TAKE_LIMITS)
        pool = make(timeout=0.3)
        await pool.start()
        with pytest.raises(CallTimeoutError):
            await pool.submit(samples.hold_async, marks.path)
        # A child that takes the place of one that was killed may need longer than calls have here.
        assert await pool(samples.add).options(timeout=10)(1) == 2

    async def test_deadlines_of_blocking_calls(self, pool: BaseExecutor, marks: Marks) -> None:
        late = pool(timeout=0.2)(samples.hold_async)
        with pytest.raises(CallTimeoutError):
            await anyio.to_thread.run_sync(late.call, marks.path)
        await self.assert_usable(pool)

    async def test_cancelling_an_async_function(self, pool: BaseExecutor, marks: Marks) -> None:
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.hold_async, marks.path)
            await marks.begun()
            await call.cancel()
        assert pool.metrics["cancelled"] == 1
        await self.assert_usable(pool)
        assert not marks.has("release")

    async def test_cancelling_a_sync_function(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.END_SYNC)
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.hold, marks.path)
            await marks.begun()
            await call.cancel()
        marks.release()
        await self.assert_usable(pool)

    async def test_a_cancelled_sync_function_can_see_it(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.TELL_SYNC)
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.watch_cancelled, marks.path)
            await marks.begun()
            await call.cancel()
        await until(lambda: marks.has("told"))
        await self.assert_usable(pool)

    async def test_cancelling_many_while_they_wait_and_run(self, pool: BaseExecutor, marks: Marks) -> None:
        async with anyio.create_task_group() as group:
            calls = [Running(group, pool.submit, samples.hold_async, marks.path, str(n)) for n in range(20)]
            await until(lambda: pool.metrics["pending"] == 20)
            await until(lambda: bool(marks.all("*.begun")))
            for call in calls:
                await call.cancel()
        assert pool.metrics["cancelled"] == 20
        await self.assert_usable(pool)
