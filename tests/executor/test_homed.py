"""Engines in their homes: one start, calls from anywhere, loops that end without telling."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
import trio

from genro_nats import ExecutorClosedError, ExecutorError, current_call
from tests.executor.conftest import TaskExecutor


def double(x: int) -> int:
    return x * 2


async def forever() -> None:
    await asyncio.Event().wait()


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.mark.anyio
async def test_calls_streams_and_maps() -> None:
    async with TaskExecutor("p") as pool:
        assert await pool.submit(double, 2) == 4
        assert [x async for x in pool.map(double, range(5))] == [0, 2, 4, 6, 8]
        assert [x async for x in pool.stream(numbers, 3)] == [0, 1, 2]
        with pytest.raises(TypeError):
            await pool.submit(double)
        assert pool.metrics["busy"] == 0
    assert pool.log == ["start", "aclose True"]
    with pytest.raises(ExecutorClosedError):
        await pool.submit(double, 1)


@pytest.mark.anyio
async def test_concurrent_first_calls_start_once() -> None:
    pool = TaskExecutor("p")
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(pool.submit, double, 1)
    assert pool.log == ["start"]
    await pool.aclose()
    await pool.aclose()
    assert pool.log == ["start", "aclose True"]
    assert pool.metrics["completed"] == 5


@pytest.mark.anyio
async def test_a_start_that_fails_reaches_every_waiter_and_can_be_tried_again() -> None:
    failures = [RuntimeError("no room")]

    def fail() -> None:
        # It fails once all three wait for it: who comes later begins another start.
        limit = time.monotonic() + 5
        while failures and pool._home is not None and len(pool._home.started._wakers) < 3:
            assert time.monotonic() < limit
            time.sleep(0.001)
        if failures:
            raise failures.pop()

    pool = TaskExecutor("p", fail=fail)
    errors: list[str] = []

    async def call() -> None:
        try:
            await pool.submit(double, 1)
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)
    assert errors == ["no room"] * 3
    assert await pool.submit(double, 1) == 2
    await pool.aclose()


@pytest.mark.anyio
async def test_cancelling_the_await_cancels_the_call() -> None:
    async with TaskExecutor("p") as pool:
        with anyio.move_on_after(0.05):
            await pool.submit(forever)
        with anyio.fail_after(5):
            while "cancelled" not in pool.log:
                await anyio.sleep(0.001)
        facts = pool.metrics
        assert (facts["failed"], facts["cancelled"], facts["pending"]) == (1, 1, 0)


@pytest.mark.anyio
async def test_shutdown_without_waiting_ends_the_calls_in_hand() -> None:
    pool = TaskExecutor("p")
    errors: list[BaseException] = []

    async def call() -> None:
        try:
            await pool.submit(forever)
        except ExecutorClosedError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        with anyio.fail_after(5):
            while pool.metrics.get("busy") != 1:
                await anyio.sleep(0.001)
            await pool.shutdown(wait=False)
    assert len(errors) == 1


def test_every_asyncio_run_gets_an_engine_and_ends_it() -> None:
    pool = TaskExecutor("p")
    for _ in range(3):
        assert asyncio.run(pool.submit(double, 1)) == 2
    assert pool.log == ["start", "aclose False"] * 3


def test_a_loop_closed_without_farewell_is_noticed_at_the_next_call() -> None:
    pool = TaskExecutor("p")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pool.submit(double, 1))
    loop.close()
    assert asyncio.run(pool.submit(double, 1)) == 2
    assert pool.log == ["start", "abandon", "start", "aclose False"]


def test_a_loop_of_this_thread_that_stopped_is_left() -> None:
    pool = TaskExecutor("p")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pool.submit(double, 1))
    assert asyncio.run(asyncio.wait_for(pool.submit(double, 1), 5)) == 2
    assert pool.log[:3] == ["start", "abandon", "start"]
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_another_loop_and_plain_threads_use_the_same_engine() -> None:
    pool = TaskExecutor("p")
    function: Any = pool(double)

    async def main() -> None:
        assert await function(1) == 2
        with ThreadPoolExecutor(3) as threads:
            loop = asyncio.get_running_loop()
            results = await asyncio.gather(
                loop.run_in_executor(threads, function.call, 2),
                loop.run_in_executor(threads, asyncio.run, function(3)),
                loop.run_in_executor(threads, trio.run, function, 4),
            )
        assert list(results) == [4, 6, 8]

    asyncio.run(main())
    assert pool.log == ["start", "aclose False"]


def test_a_plain_thread_first_then_asyncio() -> None:
    pool = TaskExecutor("p")
    function: Any = pool(double)
    assert function.call(1) == 2

    async def main() -> None:
        assert await function(2) == 4
        with pytest.raises(ExecutorError, match="await double"):
            function.call(1)
        await pool.aclose()

    asyncio.run(main())
    assert pool.log == ["start", "aclose True"]


def test_a_failing_start_in_a_plain_thread() -> None:
    def fail() -> None:
        raise RuntimeError("no room")

    pool = TaskExecutor("p", fail=fail)
    with pytest.raises(RuntimeError, match="no room"):
        pool(double).call(1)


def test_a_loop_that_waits_below_is_an_error_and_no_deadlock() -> None:
    pool = TaskExecutor("p")

    async def main() -> None:
        await pool.submit(double, 1)
        with pytest.raises(ExecutorError, match="waiting below"):
            trio.run(pool.submit, double, 1)

    asyncio.run(main())


def test_a_home_that_ends_ends_the_calls_relayed_to_it() -> None:
    pool = TaskExecutor("p")
    outcome: list[BaseException] = []
    called = threading.Event()

    async def waits() -> None:
        called.set()
        await forever()

    def call() -> None:
        try:
            pool(waits).call()
        except ExecutorError as error:
            outcome.append(error)

    thread = threading.Thread(target=call)

    async def main() -> None:
        await pool.submit(double, 1)
        thread.start()
        while not called.is_set():
            await asyncio.sleep(0.001)

    asyncio.run(main())
    thread.join(5)
    assert isinstance(outcome[0], ExecutorClosedError)


@pytest.mark.anyio
async def test_progress_arrives_in_the_callers_thread() -> None:
    pool = TaskExecutor("p")
    seen: list[tuple[float, int]] = []

    def work() -> None:
        current_call().progress(1.0)

    noting = pool(work).options(
        on_progress=lambda update: seen.append((update.fraction, threading.get_ident()))
    )
    await noting()
    with anyio.fail_after(5):
        while not seen:
            await anyio.sleep(0.001)
    assert seen == [(1.0, threading.get_ident())]
    await pool.aclose()


@pytest.mark.anyio
async def test_a_dropped_stream_is_aborted() -> None:
    pool = TaskExecutor("p")
    stream = pool.stream(numbers, 3)
    assert await anext(stream) == 0
    assert pool.metrics["pending"] == 1
    del stream
    gc.collect()
    with anyio.fail_after(5):
        while "stream aborted" not in pool.log:
            await anyio.sleep(0.001)
    assert pool.metrics["pending"] == 0
    await pool.aclose()


def test_a_dropped_pool_takes_its_engine_along() -> None:
    pool = TaskExecutor("p")
    log = pool.log

    async def main() -> None:
        nonlocal pool
        await pool.submit(double, 1)
        del pool
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert log == ["start", "abandon"]


EXIT = """
import asyncio, sys, threading
from tests.executor.conftest import TaskExecutor
pool = TaskExecutor("p")
def double(x): return x * 2
if sys.argv[1] == "thread":
    pool(double).call(1)
elif sys.argv[1] == "open":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(pool.submit(double, 1))
elif sys.argv[1] == "trio":
    import trio
    trio.run(pool.submit, double, 1)
else:
    asyncio.run(pool.submit(double, 1))
import atexit
print("done")
class Log(list):
    def append(self, x): print(x, flush=True)
pool._home.engine.log = Log()
"""


@pytest.mark.parametrize("how", ["thread", "open", "trio", "run"])
def test_interpreter_exit_without_closing_is_quiet(how: str) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", "-c", EXIT, how],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.split() == (["done"] if how == "run" else ["done", "abandon"])
    assert run.returncode == 0
