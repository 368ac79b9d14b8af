"""Closing a pool while a stream of it is open."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from genro_nats import AsyncExecutor, ExecutorClosedError, InlineExecutor, ProcessExecutor, ThreadExecutor
from genro_nats.executor.pool import Pool
from genro_nats.executor.stream import Stream
from tests.executor.conftest import TaskExecutor

KINDS: list[Callable[..., Pool]] = [
    TaskExecutor,
    InlineExecutor,
    ThreadExecutor,
    AsyncExecutor,
    ProcessExecutor,
]


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


async def later_numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.anyio
@pytest.mark.parametrize("function", [numbers, later_numbers])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_half_read_stream_does_not_hold_up_the_end(kind: Callable[..., Pool], function: Any) -> None:
    with anyio.fail_after(10):
        async with kind("half") as pool:
            stream = pool.stream(function, 1000)
            async for number in stream:
                if number == 3:
                    break
    facts = pool.metrics
    assert (facts["pending"], facts["completed"], facts["failed"]) == (0, 1, 0)
    with pytest.raises(ExecutorClosedError):
        await anext(stream)
    await stream.aclose()


class Reader:
    """Reads a stream in a task of its own, and goes on after the first item when it is told."""

    def __init__(self, stream: Stream[int], stop_after: int = 1000) -> None:
        self.items: list[int] = []
        self.error: Exception | None = None
        self.in_body, self.go_on = anyio.Event(), anyio.Event()
        self._stream = stream
        self._stop_after = stop_after

    async def run(self) -> None:
        try:
            async with self._stream as stream:
                async for item in stream:
                    self.items.append(item)
                    if len(self.items) == self._stop_after:
                        break
                    self.in_body.set()
                    await self.go_on.wait()
        except ExecutorClosedError as error:
            self.error = error


async def closing(pool: Pool) -> None:
    while pool._closing is None:
        await anyio.sleep(0)


@pytest.mark.anyio
@pytest.mark.parametrize("stop_after", [1000, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_in_its_loop_body_is_waited_for(kind: Callable[..., Pool], stop_after: int) -> None:
    pool = kind("body")
    reader = Reader(pool.stream(numbers, 100), stop_after)
    ended = anyio.Event()

    async def shut_down() -> None:
        await pool.shutdown()
        ended.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(reader.run)
            await reader.in_body.wait()
            group.start_soon(shut_down)
            await closing(pool)
            for _ in range(20):
                await anyio.sleep(0.001)
                assert not ended.is_set()
            reader.go_on.set()
    assert reader.items == list(range(min(100, stop_after)))
    assert (reader.error, pool.metrics["pending"], pool.metrics["completed"]) == (None, 0, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_the_caller_bounds_the_wait_for_a_reader(kind: Callable[..., Pool]) -> None:
    pool = kind("bound")
    reader = Reader(pool.stream(numbers, 100))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(reader.run)
            await reader.in_body.wait()
            with anyio.move_on_after(0.05) as scope:
                await pool.shutdown()
            assert scope.cancelled_caught
            reader.go_on.set()
    assert reader.items == [0]
    assert isinstance(reader.error, ExecutorClosedError)
    assert pool.metrics["pending"] == 0


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_whose_reader_has_ended_is_closed(kind: Callable[..., Pool]) -> None:
    pool = kind("gone")
    stream = pool.stream(numbers, 100)

    async def read_one() -> None:
        assert await anext(stream) == 0

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(read_one)
        await pool.shutdown()
    with pytest.raises(ExecutorClosedError):
        await anext(stream)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [TaskExecutor, ThreadExecutor])
async def test_a_stream_that_is_being_read_is_waited_for(kind: Callable[..., Pool]) -> None:
    pool, asked, go_on = kind("read"), anyio.Event(), threading.Event()
    items: list[int] = []

    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.to_thread(go_on.wait, 10)  # generators of these kinds run in asyncio loops
        yield 2

    async def read() -> None:
        async for item in pool.stream(slow):
            items.append(item)
            asked.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await asked.wait()
            group.start_soon(pool.shutdown)
            await closing(pool)
            go_on.set()
    assert items == [1, 2]
    assert pool.metrics["pending"] == 0


@pytest.mark.anyio
async def test_without_waiting_every_stream_ends() -> None:
    pool = ThreadExecutor("now", max_workers=2)
    stream = pool.stream(numbers, 10)
    assert await anext(stream) == 0
    begun = time.monotonic()
    await pool.shutdown(wait=False)
    assert time.monotonic() - begun < 5
    assert pool.metrics["pending"] == 0
    with pytest.raises(ExecutorClosedError):
        await anext(stream)
