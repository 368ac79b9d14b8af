"""Conformance: map."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Marks, Running, SuiteBase, until

__all__ = ["MapTests"]


class MapTests(SuiteBase):
    """One call per item, a bounded number of them at a time."""

    async def test_in_order(self, pool: BaseExecutor) -> None:
        assert [x async for x in pool.map(samples.add, range(50), concurrency=7)] == list(range(1, 51))
        assert [x async for x in pool(samples.add_async).map([1, 2])] == [2, 3]
        assert [x async for x in pool.map(samples.add, [])] == []

    async def test_as_completed(self, pool: BaseExecutor) -> None:
        found = [x async for x in pool.map(samples.add, range(50), concurrency=7, ordered=False)]
        assert sorted(found) == list(range(1, 51))

    async def test_items_from_an_async_iterator(self, pool: BaseExecutor) -> None:
        async def items() -> AsyncIterator[int]:
            for n in range(5):
                yield n

        assert [x async for x in pool.map(samples.add, items(), concurrency=2)] == [1, 2, 3, 4, 5]

    async def test_no_more_at_a_time_than_asked_for(self, pool: BaseExecutor, marks: Marks) -> None:
        given = 0

        def items() -> Iterator[tuple[str, str]]:
            nonlocal given
            for n in range(9):
                given += 1
                yield marks.path, str(n)

        crowd = pool(samples.crowd_at)

        async def results() -> list[int]:
            return [x async for x in crowd.map(items(), concurrency=3)]

        async with anyio.create_task_group() as group:
            mapping = Running(group, results)
            await until(lambda: pool.metrics["pending"] == 3)
            await marks.begun("0")
            assert (given, pool.metrics["pending"]) == (3, 3)
            marks.release()
            counts = await mapping.result()
        assert len(counts) == 9
        assert max(counts) <= 3

    async def test_the_first_error_ends_it(self, pool: BaseExecutor) -> None:
        given = 0

        def items() -> Iterator[int]:
            nonlocal given
            for n in [0, 1, -2, *range(3, 1000)]:
                given += 1
                yield n

        results = pool.map(samples.negative, items(), concurrency=2)
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(ValueError, match="-2 is negative"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        assert given < 1000
        await until(lambda: pool.metrics["pending"] == 0)
        assert await pool.submit(samples.add, 1) == 2

    @pytest.mark.parametrize("function", [samples.negative_stops, samples.negative_is_exhausted])
    async def test_what_looks_like_the_end_is_an_error(
        self, pool: BaseExecutor, function: Callable[[int], Any]
    ) -> None:
        results = pool.map(function, [0, 1, -2, 3])
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
            await anext(results)
        assert await pool.submit(samples.add, 1) == 2

    async def test_leaving_early_cancels_what_is_in_flight(self, pool: BaseExecutor, marks: Marks) -> None:
        places = ((n, marks.path) for n in range(100))
        async with pool.map(samples.hold_others, places, concurrency=2) as results:
            await anext(results)
            await marks.begun("1")
        await until(lambda: pool.metrics["pending"] == 0)
        assert pool.metrics["submitted"] < 100
        assert await pool.submit(samples.add, 1) == 2
