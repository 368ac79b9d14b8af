"""What the kinds of this process have in common, under asyncio and trio."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from genro_nats import (
    AsyncExecutor,
    CallTimeoutError,
    ExecutorClosedError,
    ExecutorError,
    InlineExecutor,
    LocalExecutor,
    RemoteError,
    ThreadExecutor,
    current_call,
)
from genro_nats.executor.bridge import spawn
from genro_nats.executor.pool import Pool

pytestmark = pytest.mark.anyio
user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture(params=[InlineExecutor, ThreadExecutor, AsyncExecutor, LocalExecutor])
def pool(request: pytest.FixtureRequest) -> Pool:
    if request.param is LocalExecutor:
        return LocalExecutor("kind", bypass=True)
    made: Pool = request.param("kind", max_workers=2)
    return made


def add(a: int, b: int = 1) -> int:
    return a + b


async def later(a: int) -> int:
    await anyio.sleep(0) if threading.current_thread() is threading.main_thread() else await asyncio.sleep(0)
    return a


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


async def later_numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("odd")


def odd() -> None:
    raise Odd(1, 2)


async def test_values_and_errors(pool: Pool) -> None:
    async with pool:
        assert await pool.submit(add, 1, b=2) == 3
        assert await pool.submit(later, 4) == 4
        with pytest.raises(Odd):
            await pool.submit(odd)
        with pytest.raises(RemoteError, match="SystemExit"):
            await pool.submit(sys.exit, 3)
        with pytest.raises(ExecutorError, match=r"numbers is a generator function: use numbers\.stream"):
            await pool.submit(numbers, 3)
        facts = pool.metrics
    assert list(facts)[:7] == [
        "name",
        "mode",
        "pending",
        "submitted",
        "completed",
        "failed",
        "avg_duration_ms",
    ]
    assert (facts["submitted"], facts["completed"], facts["failed"], facts["pending"]) == (4, 2, 2, 0)
    assert facts["mode"] == ("bypass" if isinstance(pool, LocalExecutor) else pool.kind)


async def test_nothing_happens_before_the_await(pool: Pool) -> None:
    coroutine = pool.submit(add)
    assert pool.metrics["submitted"] == 0
    with pytest.raises(TypeError):
        await coroutine
    await pool.aclose()
    late = pool(add)(1)
    with pytest.raises(ExecutorClosedError):
        await late
    await pool.start()
    assert await pool.submit(add, 1) == 2
    await pool.shutdown(wait=False)


async def test_the_running_call(pool: Pool) -> None:
    seen: list[float] = []

    def look() -> tuple[Any, ...]:
        call = current_call()
        call.progress(1.0, "done")
        return call.pool, call.function.rpartition(":")[2], call.remaining <= 5, user.get()

    user.set("ada")
    watched = pool(look).options(timeout=5, on_progress=lambda update: seen.append(update.fraction))
    assert await watched() == ("kind", "test_the_running_call.<locals>.look", True, "ada")
    with anyio.fail_after(5):
        while not seen:
            await anyio.sleep(0)
    assert seen == [1.0]
    assert current_call().pool == ""
    await pool.aclose()


async def test_a_listener_that_raises_breaks_nothing(pool: Pool) -> None:
    def listener(update: object) -> None:
        raise ValueError

    def tell() -> int:
        current_call().progress(0.5)
        return 1

    assert await pool(tell).options(on_progress=listener)() == 1
    await pool.aclose()


async def test_nested_calls_run_inline(pool: Pool) -> None:
    inner: Any = pool(add)
    outer: Any = pool(lambda: (inner.call(1), threading.get_ident()))

    async def deep() -> int:
        return int(await inner(1))

    value, ident = await outer()
    assert value == 2
    assert (ident == threading.get_ident()) == (pool.kind == "inline" or isinstance(pool, LocalExecutor))
    assert await pool.submit(deep) == 2
    await pool.aclose()


async def test_streams(pool: Pool) -> None:
    async with pool:
        for function in (numbers, later_numbers):
            assert [item async for item in pool.stream(function, 3)] == [0, 1, 2]
            async with pool.stream(function, 3) as stream:
                assert await anext(stream) == 0
                assert pool.metrics["pending"] == 1
            assert pool.metrics["pending"] == 0
        with pytest.raises(ExecutorError, match="needs a generator function"):
            await anext(pool.stream(add, 1))  # type: ignore[call-overload]
        facts = pool.metrics
        assert (facts["completed"], facts["failed"]) == (4, 1)


async def test_leaving_a_stream_closes_its_generator(pool: Pool) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async with pool, pool.stream(endless) as stream:
        await anext(stream)
        await stream.aclose()
        assert closed.is_set()
        closed.clear()
        other = pool.stream(endless)
        await anext(other)
        del other
        with anyio.fail_after(5):
            while not closed.is_set():
                await anyio.sleep(0)


async def test_a_stream_raises_what_its_generator_raises(pool: Pool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise Odd(1, 2)

    async with pool:
        stream = pool.stream(broken)
        assert await anext(stream) == 1
        with pytest.raises(Odd):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_deadlines_reach_into_async_functions(pool: Pool) -> None:
    async def forever() -> None:
        if isinstance(pool, ThreadExecutor):
            await asyncio.Event().wait()
        await anyio.sleep_forever()

    with pytest.raises(CallTimeoutError) as caught:
        await pool(timeout=0.02)(forever)()
    assert caught.value.timeout == 0.02
    assert pool.metrics["timed_out"] == 1
    with anyio.fail_after(5):
        await pool.aclose()


async def test_a_cancelled_thread_is_told_and_stays_taken() -> None:
    began, told, release = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        while not current_call().cancelled:
            release.wait(0.001)
        told.set()
        release.wait(5)

    async with ThreadExecutor("t", max_workers=1) as pool:
        running = spawn(pool.submit, work)
        with anyio.fail_after(5):
            while not began.is_set():
                await anyio.sleep(0)
            running.cancel()
            await running.done.wait()
            assert pool.metrics["cancelled"] == 1
            while not told.is_set():
                await anyio.sleep(0)
            with pytest.raises(CallTimeoutError):
                await pool(timeout=0.02)(add)(1)
            release.set()
            assert await pool.submit(add, 1) == 2


async def test_the_initializer_runs_once_per_thread() -> None:
    seen: list[int] = []
    barrier = threading.Barrier(2)
    async with ThreadExecutor("t", max_workers=2, initializer=seen.append, initargs=(7,)) as pool:
        assert seen == []
        _ = [item async for item in pool.map(lambda _: barrier.wait(5), range(2), concurrency=2)]
        _ = [item async for item in pool.map(add, range(9))]
    assert seen == [7, 7]


async def test_an_initializer_that_raises(pool: Pool) -> None:
    def broken() -> None:
        raise Odd(1, 2)

    for kind in (ThreadExecutor, InlineExecutor, AsyncExecutor):
        made: Pool = kind("t", initializer=broken)
        with anyio.fail_after(5), pytest.raises((ExecutorError, Odd), match="odd"):
            await made.submit(add, 1)
        assert made.metrics["failed"] == 1
        await made.aclose()


async def test_shutdown_without_waiting_ends_the_waits_of_threads() -> None:
    release = threading.Event()
    pool = ThreadExecutor("t", max_workers=1)
    running = [spawn(pool.submit, release.wait, 5) for _ in range(2)]
    with anyio.fail_after(5):
        while pool.metrics["pending"] < 2:
            await anyio.sleep(0)
        await pool.shutdown(wait=False)
        for call in running:
            await call.done.wait()
            with pytest.raises(ExecutorClosedError):
                call.result()
    release.set()


async def test_shutdown_waits_for_the_calls_in_hand() -> None:
    release = threading.Event()
    pool = ThreadExecutor("t")
    running = spawn(pool.submit, release.wait, 5)
    with anyio.fail_after(5):
        while not pool.metrics["pending"]:
            await anyio.sleep(0)
        closing = spawn(pool.aclose)
        while pool._closing is None:
            await anyio.sleep(0)
        with pytest.raises(ExecutorClosedError):
            await pool.submit(add, 1)
        release.set()
        await closing.done.wait()
    assert running.result() is True


async def test_async_pools_run_so_many_at_a_time() -> None:
    at_once = peak = 0

    async def work() -> None:
        nonlocal at_once, peak
        at_once += 1
        peak = max(peak, at_once)
        await anyio.sleep(0.002)
        at_once -= 1

    async with AsyncExecutor("a", concurrency=3) as pool, anyio.create_task_group() as group:
        for _ in range(9):
            group.start_soon(pool.submit, work)
    assert peak == 3


async def test_bypass_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRO_EXECUTOR_BYPASS", "1")
    pool = LocalExecutor()
    assert await pool.submit(threading.get_ident) == threading.get_ident()
    assert await pool.submit(later, 1) == 1
    assert (pool.metrics["mode"], pool.metrics["name"]) == ("bypass", "default")
