"""Process pools through the public API: real children, from every kind of caller."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys

import anyio
import pytest

from genro_nats import CallTimeoutError, ExecutorRegistry, ProcessExecutor
from tests.executor import samples

SCRIPT = """
import asyncio, os, sys
from genro_nats import ProcessExecutor
pool = ProcessExecutor("p", max_workers=1, spares=0)

@pool
def fact(n): return 1 if n < 2 else n * fact.call(n - 1)

@pool
async def later(n): return (await fact(n), os.getpid())

@pool
def items(n): yield from range(n)

async def main():
    value, pid = await later(5)
    assert pid != os.getpid()
    assert [x async for x in items.stream(3)] == [0, 1, 2]
    assert [x async for x in pool(lambda x: x * 2).map(range(3))] == [0, 2, 4]
    print(value, await fact(3))

if sys.argv[1] == "asyncio":
    asyncio.run(main())
elif sys.argv[1] == "trio":
    import trio
    trio.run(main)
else:
    print(fact.call(5), fact.call(3))
"""


@pytest.mark.parametrize("how", ["asyncio", "trio", "thread"])
def test_a_script_without_a_main_guard_that_closes_nothing(how: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=30, check=False
    )
    assert (run.stdout, run.stderr, run.returncode) == ("120 6\n", "", 0)


@pytest.mark.anyio
async def test_a_deadline_ends_the_call_and_the_pool_goes_on() -> None:
    async with ProcessExecutor("p", max_workers=1) as pool:
        with pytest.raises(CallTimeoutError):
            with anyio.fail_after(20):
                await pool(timeout=0.2)(lambda: all(i == 0 for i in iter(int, 1)))()
        assert await pool.submit(os.getpid) != os.getpid()
        assert pool.metrics["timed_out"] == 1


def task_switches() -> int:
    """How often this process has waited for something."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="whom a write to a socket wakes is up to the kernel")
async def test_a_child_is_woken_once_for_a_call() -> None:
    """Not also when its answer is taken, which costs more than the call itself."""
    async with ProcessExecutor("p", max_workers=1) as pool:
        before = await pool.submit(task_switches)
        for _ in range(200):
            await pool.submit(int)
        assert await pool.submit(task_switches) - before < 300


@pytest.mark.anyio
async def test_a_stream_whose_function_asks_in_a_thread_whether_it_is_cancelled() -> None:
    """Two read the pipe then: what one of them reads is not lost for the other."""
    async with ProcessExecutor("p", max_workers=1) as pool:
        with anyio.fail_after(30):
            for _ in range(3):
                assert [n async for n in pool.stream(samples.watched, 200)] == [*range(200)]
            assert await pool.submit(int) == 0


def test_one_pool_for_several_event_loops_in_turn() -> None:
    pool = ExecutorRegistry().executor(name="turns", max_workers=1, spares=0)
    pids = {asyncio.run(pool.submit(os.getpid)) for _ in range(2)}
    assert len(pids) == 2
