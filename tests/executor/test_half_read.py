"""Closing a pool while a stream of it is open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from genro_nats import AsyncExecutor, ExecutorClosedError, InlineExecutor, ProcessExecutor, ThreadExecutor
from genro_nats.executor.pool import Pool
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


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [TaskExecutor, ThreadExecutor])
async def test_a_stream_that_is_being_read_is_waited_for(kind: Callable[..., Pool]) -> None:
    pool, asked = kind("read"), anyio.Event()
    items: list[int] = []

    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.2)  # generators of these kinds run in asyncio loops
        yield 2

    async def read() -> None:
        async for item in pool.stream(slow):
            items.append(item)
            asked.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await asked.wait()
            await pool.shutdown()
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
