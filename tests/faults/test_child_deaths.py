"""Children that die, in every way: their own running call ends, all others run once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genro_nats import AsyncProcessExecutor, ProcessExecutor, RemoteError, WorkerLostError
from tests.faults import jobs
from tests.faults.conftest import Notes, alive, children, read_again, roster, stop_reading, until

pytestmark = pytest.mark.anyio


async def full(pool: Any, size: int) -> None:
    """The pool has all its children, ready and not on their way out."""
    await until(lambda: len(children(pool)) == size and all(map(alive, children(pool))))


async def test_a_killed_child_ends_its_running_call_only(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1) as pool:
        for key in range(5):
            await pool.submit(jobs.work, notes.path, f"warm{key}")  # now it counts as short
        doomed = asyncio.create_task(pool.submit(jobs.work, notes.path, "doomed", 30))
        ahead = [asyncio.create_task(pool.submit(jobs.work, notes.path, f"a{n}")) for n in range(7)]
        await until(lambda: "doomed" in notes.lines())
        (pid,) = children(pool)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="SIGKILL") as lost:
            await asyncio.wait_for(doomed, 5)
        assert (lost.value.pid, lost.value.exitcode) == (pid, -9)
        assert await asyncio.wait_for(asyncio.gather(*ahead), 5) == [f"a{n}" for n in range(7)]
        assert notes.most() == 1
        await full(pool, 1)
        assert roster(pool).lost == 1


@pytest.mark.parametrize(
    ("job", "how"),
    [
        ((jobs.exit_now, 3), "exited with code 3"),
        ((jobs.exit_now, 0), "exited with code 0"),
        ((jobs.segfault,), "SIGSEGV"),
        ((jobs.overflow_c_stack,), "SIGSEGV|SIGABRT"),
        ((os.abort,), "SIGABRT"),
    ],
    ids=["exit3", "exit0", "segfault", "stack", "abort"],
)
async def test_a_call_that_ends_its_child_says_how(job: tuple[Callable[..., Any], Any], how: str) -> None:
    async with ProcessExecutor("p", max_workers=1) as pool:
        with pytest.raises(WorkerLostError, match=how):
            await asyncio.wait_for(pool.submit(*job), 20)
        assert await asyncio.wait_for(pool.submit(jobs.pid), 5) in children(pool)


@pytest.mark.parametrize("threads", [1, 2])
async def test_exceptions_that_are_none_leave_the_child_alone(threads: int) -> None:
    async with ProcessExecutor("p", max_workers=1, threads=threads, spares=0) as pool:
        before = await pool.submit(jobs.pid)
        with pytest.raises(RemoteError, match="SystemExit: 3"):
            await pool.submit(jobs.sys_exit, 3)
        with pytest.raises(RemoteError, match="KeyboardInterrupt"):
            await pool.submit(jobs.interrupt)
        with pytest.raises(RecursionError):
            await pool.submit(jobs.recurse)
        with pytest.raises(RemoteError, match="SystemExit"):
            await asyncio.wait_for(pool.submit(jobs.give_unpicklable, "exit"), 5)
        assert await pool.submit(jobs.pid) == before


async def test_sys_exit_in_async_functions_leaves_the_neighbours_alone(notes: Notes) -> None:
    async with AsyncProcessExecutor("p", max_workers=1, concurrency=4) as pool:
        neighbour = asyncio.create_task(pool.submit(jobs.async_work, notes.path, "n", 0.3))
        await notes.wait()
        with pytest.raises(RemoteError, match="SystemExit"):
            await pool.submit(jobs.async_sys_exit, 3)
        with pytest.raises(RemoteError, match="SystemExit"):
            await pool.submit(jobs.sys_exit, 3)
        assert await neighbour == "n"


async def test_many_random_kills_under_load(notes: Notes) -> None:
    ended: list[str] = []
    rng = random.Random(7)

    async def lane(pool: ProcessExecutor, number: int) -> None:
        for n in range(60):
            key = f"{number}.{n}"
            seconds = rng.choice([0, 0, 0, 0, 0.001, 0.02])
            try:
                assert await pool.submit(jobs.work, notes.path, key, seconds) == key
                ended.append(key)
            except WorkerLostError as error:
                ended.append(f"lost {error.exitcode}")

    async with ProcessExecutor("p", max_workers=2, spares=2) as pool:
        lanes = [asyncio.create_task(lane(pool, number)) for number in range(16)]
        killed: set[int] = set()
        while not all(task.done() for task in lanes):
            found = [child for child in roster(pool).active if child.inflight]
            if found:
                killed.add(pid := rng.choice(found).pid)
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(rng.uniform(0.005, 0.04))
        await asyncio.wait_for(asyncio.gather(*lanes), 30)
        assert len(ended) == 16 * 60
        assert notes.most() == 1
        assert len(killed) > 5
        assert ended.count("lost -9") <= len(killed)
        done = set(ended) - {"lost -9"}
        assert done <= set(notes.lines())
        await full(pool, 2)
        await until(lambda: roster(pool).lost == len(killed))
        assert pool.metrics["pending"] == 0


async def test_replies_sent_before_the_death_arrive_even_when_a_write_fails(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1, threads=4, spares=1) as pool:
        (child,) = roster(pool).active
        calls = [asyncio.create_task(pool.submit(jobs.work, notes.path, f"f{n}")) for n in range(3)]
        await asyncio.sleep(0)
        sock = stop_reading(child)
        await notes.wait(3)
        await until(lambda: len(_queued(sock)) > 0)
        await asyncio.sleep(0.05)  # the last reply's way from its thread into the pipe can't be seen
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not alive(child.pid))
        child._pipe.send([b"x"])
        read_again(child)
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert outcomes == ["f0", "f1", "f2"]


def _queued(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


async def test_functions_that_close_descriptors_or_write_into_them(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1) as pool:
        assert await pool.submit(jobs.write_to_stdout, "words\n") == 6
        with pytest.raises(WorkerLostError):
            await asyncio.wait_for(pool.submit(jobs.close_descriptors), 5)
        assert await pool.submit(jobs.write_to_stdout, "words\n") == 6
        with pytest.raises(WorkerLostError):
            await asyncio.wait_for(pool.submit(jobs.close_and_stay, notes.path), 5)
        stayed = int(notes.lines()[-1])
        await until(lambda: not alive(stayed), 3)
        await full(pool, 1)


async def test_garbage_written_into_the_pipe_costs_one_child() -> None:
    seen: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
    async with ProcessExecutor("p", max_workers=1) as pool:
        with pytest.raises(WorkerLostError):
            await asyncio.wait_for(pool.submit(jobs.write_everywhere), 5)
        assert await asyncio.wait_for(pool.submit(jobs.nap, 0), 5) is None


async def test_no_descriptor_is_left_behind() -> None:
    async with ProcessExecutor("p", max_workers=2, spares=1) as pool:
        await pool.submit(jobs.pid)
        await until(lambda: len(roster(pool).spares) == 1)
        before = _descriptors()
        for _ in range(100):
            lost = [asyncio.create_task(pool.submit(jobs.exit_now, 1)) for _ in range(2)]
            for outcome in await asyncio.wait_for(asyncio.gather(*lost, return_exceptions=True), 10):
                assert isinstance(outcome, WorkerLostError)
        await until(lambda: len(children(pool)) == 2 and len(roster(pool).spares) == 1)
        await until(lambda: _descriptors() <= before, 3)
        assert roster(pool).lost == 200


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
