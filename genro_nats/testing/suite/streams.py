"""Conformance: streams of generator functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from genro_nats.errors import CallTimeoutError, ExecutorError
from genro_nats.executor.base import BaseExecutor
from genro_nats.message import STREAM_WINDOW
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Marks, SuiteBase, until

__all__ = ["StreamTests"]

both = pytest.mark.parametrize("sort", ["sync", "async"])
_ENDLESS: dict[str, Callable[..., Any]] = {"sync": samples.endless, "async": samples.endless_async}
_NUMBERS: dict[str, Callable[..., Any]] = {"sync": samples.numbers, "async": samples.numbers_async}
_BROKEN: dict[str, Callable[..., Any]] = {
    "sync": samples.broken_numbers,
    "async": samples.broken_numbers_async,
}


class StreamTests(SuiteBase):
    """Items as they are made, and no further ahead than the window."""

    @both
    async def test_items_in_order(self, pool: BaseExecutor, sort: str) -> None:
        count = 3 * STREAM_WINDOW
        assert [x async for x in pool.stream(_NUMBERS[sort], count)] == list(range(count))
        assert [x async for x in pool.stream(_NUMBERS[sort], 0)] == []
        assert pool.metrics["pending"] == 0

    @both
    async def test_decorated_generators(self, pool: BaseExecutor, sort: str) -> None:
        numbers = pool(_NUMBERS[sort])
        assert [x async for x in numbers.stream(3)] == [0, 1, 2]

    @both
    async def test_the_generator_stays_within_the_window(
        self, pool: BaseExecutor, marks: Marks, sort: str
    ) -> None:
        async with pool.stream(_ENDLESS[sort], marks.path) as stream:
            for taken in range(1, 5 * STREAM_WINDOW):
                await anext(stream)
                assert marks.size("produced") - taken <= STREAM_WINDOW
                if taken % 10 == 0:  # time in which it could run ahead
                    await pool.submit(samples.add_async, 1)
                    assert marks.size("produced") - taken <= STREAM_WINDOW

    @both
    async def test_closing_early_stops_the_generator(
        self, pool: BaseExecutor, marks: Marks, sort: str
    ) -> None:
        async with pool.stream(_ENDLESS[sort], marks.path) as stream:
            assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
            assert not marks.has("closed")
        await until(lambda: marks.has("closed"))
        await until(lambda: pool.metrics["pending"] == 0)
        produced = marks.size("produced")
        assert await pool.submit(samples.add, 1) == 2
        assert marks.size("produced") == produced

    @both
    async def test_an_error_comes_after_the_items_before_it(self, pool: BaseExecutor, sort: str) -> None:
        stream = pool.stream(_BROKEN[sort], 5)
        assert [await anext(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="broken off"):
            await anext(stream)
        assert pool.metrics["pending"] == 0
        assert await pool.submit(samples.add, 1) == 2

    async def test_what_looks_like_the_end_is_an_error(self, pool: BaseExecutor) -> None:
        stream = pool.stream(samples.numbers_and_stop, 3)
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="raised StopAsyncIteration") as caught:
            await anext(stream)
        assert isinstance(caught.value.__cause__, StopAsyncIteration)
        assert pool.metrics["pending"] == 0
        assert await pool.submit(samples.add, 1) == 2

    async def test_only_generators_stream(self, pool: BaseExecutor) -> None:
        function: Any = samples.add
        with pytest.raises(ExecutorError, match="needs a generator function"):
            await anext(pool.stream(function, 1))
        assert await pool.submit(samples.add, 1) == 2

    async def test_a_stream_has_a_deadline(self, pool: BaseExecutor, marks: Marks) -> None:
        await pool.start()
        stream = pool(timeout=0.3)(samples.one_and_stuck).stream(marks.path)
        assert await anext(stream) == 1
        with pytest.raises(CallTimeoutError):
            await anext(stream)
        await until(lambda: pool.metrics["pending"] == 0)
        assert await pool.submit(samples.add, 1) == 2
