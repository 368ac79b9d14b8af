"""Conformance: admission and the books."""

from __future__ import annotations

import anyio
import pytest

from genro_nats.errors import CallTimeoutError, ExecutorOverloadError
from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, Factory, Marks, Running, SuiteBase, until

__all__ = ["LimitTests"]


class LimitTests(SuiteBase):
    """``max_pending``, and submitted = completed + failed + pending."""

    async def test_over_the_limit_calls_fail(self, make: Factory, marks: Marks) -> None:
        self.need(Can.TAKE_LIMITS)
        pool = make(max_pending=2, overload="fail")
        async with anyio.create_task_group() as group:
            calls = [Running(group, pool.submit, samples.hold_async, marks.path) for _ in range(2)]
            await until(lambda: pool.metrics["pending"] == 2)
            with pytest.raises(ExecutorOverloadError) as caught:
                await pool.submit(samples.add, 1)
            assert str(caught.value) == f"Executor '{pool.name}' has 2 pending tasks."
            assert (caught.value.executor, caught.value.max_pending) == (pool.name, 2)
            assert caught.value.retryable
            marks.release()
            assert [await call.result() for call in calls] == ["call", "call"]
        assert await pool.submit(samples.add, 1) == 2
        facts = pool.metrics
        assert (facts["submitted"], facts["completed"], facts["rejected"]) == (3, 3, 1)

    async def test_over_the_limit_calls_wait(self, make: Factory, marks: Marks) -> None:
        self.need(Can.TAKE_LIMITS)
        pool = make(max_pending=1, overload="wait")
        async with anyio.create_task_group() as group:
            first = Running(group, pool.submit, samples.hold_async, marks.path)
            await marks.begun()
            second = Running(group, pool.submit, samples.add, 1)
            await until(lambda: pool.metrics["waiting"] == 1)
            assert (pool.metrics["pending"], pool.metrics["submitted"]) == (1, 1)
            assert not second.ended
            marks.release()
            assert await first.result() == "call"
            assert await second.result() == 2
        assert (pool.metrics["pending"], pool.metrics["waiting"]) == (0, 0)

    async def test_a_deadline_counts_while_waiting(self, make: Factory, marks: Marks) -> None:
        self.need(Can.TAKE_LIMITS)
        pool = make(max_pending=1)
        async with anyio.create_task_group() as group:
            first = Running(group, pool.submit, samples.hold_async, marks.path)
            await marks.begun()
            with pytest.raises(CallTimeoutError):
                await pool(timeout=0.1)(samples.add)(1)
            marks.release()
            assert await first.result() == "call"
        assert await pool.submit(samples.add, 1) == 2

    async def test_a_cancelled_wait_gives_up_its_place(self, make: Factory, marks: Marks) -> None:
        self.need(Can.TAKE_LIMITS)
        pool = make(max_pending=1)
        async with anyio.create_task_group() as group:
            first = Running(group, pool.submit, samples.hold_async, marks.path)
            await marks.begun()
            second = Running(group, pool.submit, samples.add, 1)
            await until(lambda: pool.metrics["waiting"] == 1)
            await second.cancel()
            assert pool.metrics["waiting"] == 0
            marks.release()
            assert await first.result() == "call"
        assert await pool.submit(samples.add, 1) == 2

    async def test_the_books_balance(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.SHOW_METRICS)
        async with anyio.create_task_group() as group:
            running = Running(group, pool.submit, samples.hold_async, marks.path)
            await marks.begun()
            for n in range(10):
                assert await pool.submit(samples.add_async, n) == n + 1
            for _ in range(3):
                with pytest.raises(LookupError):
                    await pool.submit(samples.fail_async)
            with pytest.raises(CallTimeoutError):
                await pool(timeout=0.05)(samples.hold_async)(marks.path, "late")
            cancelled = Running(group, pool.submit, samples.hold_async, marks.path, "cancelled")
            await until(lambda: pool.metrics["pending"] == 2)
            await cancelled.cancel()
            assert [x async for x in pool.stream(samples.numbers_async, 3)] == [0, 1, 2]
            facts = pool.metrics
            assert (facts["submitted"], facts["completed"], facts["failed"], facts["pending"]) == (
                17,
                11,
                5,
                1,
            )
            assert (facts["cancelled"], facts["timed_out"]) == (1, 1)
            marks.release()
            await running.result()
        facts = pool.metrics
        assert facts["submitted"] == 17 == facts["completed"] + facts["failed"]
        assert facts["pending"] == 0
        assert facts["avg_duration_ms"] > 0

    async def test_the_first_figures(self, pool: BaseExecutor) -> None:
        first = ["name", "mode", "pending", "submitted", "completed", "failed", "avg_duration_ms"]
        assert list(pool.metrics)[:7] == first
        assert pool.metrics["name"] == pool.name
