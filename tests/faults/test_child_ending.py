"""Calls ended early in a process pool: at the deadline, by cancelling, in storms, beside neighbours."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from genro_nats import AsyncProcessExecutor, CallTimeoutError, ProcessExecutor, WorkerLostError
from genro_nats.executor.children.choice import ShortCalls
from tests.faults import jobs
from tests.faults.conftest import Notes, alive, children, read_again, roster, soonest, stop_reading, until

pytestmark = pytest.mark.anyio


async def test_at_its_deadline_the_call_ends_and_a_spare_takes_over(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1, spares=1) as pool:

        async def late() -> float:
            await until(lambda: len(roster(pool).spares) == 1)
            spare = roster(pool).spares[0].pid
            begin = time.monotonic()
            with pytest.raises(CallTimeoutError):
                await pool(timeout=0.3)(jobs.spin)(notes.path)
            took = time.monotonic() - begin
            assert took >= 0.29
            assert await pool.submit(jobs.pid) == spare
            await until(lambda: not alive(int(notes.lines()[-1])))
            return took

        await soonest(late, 0.6)
        await until(lambda: len(roster(pool).spares) == 1)


async def test_cancelling_frees_the_child(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1, spares=1) as pool:
        call = asyncio.create_task(pool.submit(jobs.spin, notes.path))
        pid = int((await notes.wait())[0])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.wait_for(pool.submit(jobs.pid), 2) != pid
        await until(lambda: not alive(pid), 2)


async def test_cancelling_a_call_sent_ahead_touches_nobody_else(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1, spares=0) as pool:
        for n in range(5):
            await pool.submit(jobs.work, notes.path, f"warm{n}")
        pid = children(pool)
        head = asyncio.create_task(pool.submit(jobs.work, notes.path, "head", 0.3))
        ahead = [asyncio.create_task(pool.submit(jobs.work, notes.path, f"a{n}")) for n in range(5)]
        await until(lambda: "head" in notes.lines())
        ahead[2].cancel()
        results = await asyncio.gather(head, *ahead, return_exceptions=True)
        assert isinstance(results.pop(3), asyncio.CancelledError)
        assert results == ["head", "a0", "a1", "a3", "a4"]
        assert children(pool) == pid
        assert "a2" not in notes.lines()
        assert notes.most() == 1


async def test_cancel_storms(notes: Notes) -> None:
    """Whoever was not cancelled gets its result, once; the pool ends up whole and free."""
    rng = random.Random(3)
    async with ProcessExecutor("p", max_workers=2, spares=2) as pool:
        for n in range(8):
            await pool.submit(jobs.work, notes.path, f"warm{n}")
        for storm in range(12):
            keys = [f"{storm}.{n}" for n in range(40)]
            calls = [
                asyncio.create_task(
                    pool.submit(jobs.work, notes.path, key, rng.choice([0] * 12 + [0.001, 0.01, 20]))
                )
                for key in keys
            ]
            await asyncio.sleep(rng.uniform(0, 0.02))
            kept = set(rng.sample(range(40), 20))
            gone = [n for n in range(40) if n not in kept]
            rng.shuffle(gone)
            for n in gone:
                calls[n].cancel()
                if rng.random() < 0.2:
                    await asyncio.sleep(rng.uniform(0, 0.002))
            _, late = await asyncio.wait([calls[n] for n in kept], timeout=0.7)
            for call in late:  # those that sleep for long
                call.cancel()
            outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
            for n in kept:
                assert outcomes[n] == keys[n] or (
                    calls[n] in late and isinstance(outcomes[n], asyncio.CancelledError)
                )
        assert notes.most() == 1
        assert roster(pool).lost == 0
        await until(lambda: pool.metrics["busy"] == 0 and len(children(pool)) == 2)

        async def naps() -> float:
            begin = time.monotonic()
            await asyncio.gather(*(pool.submit(jobs.nap, 0.05) for _ in range(4)))
            return time.monotonic() - begin

        await soonest(naps, 0.6)


async def test_two_cancelled_calls_in_one_child_do_not_keep_it(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of one is under way, the other runs for long: the child is freed all the same."""
    async with ProcessExecutor("p", max_workers=1, spares=1) as pool:
        await pool.start()
        monkeypatch.setattr(ShortCalls, "is_short", lambda self, key: True)
        # Its parent does not hear the reply: it must not take "long" for stuck behind "short".
        monkeypatch.setattr("genro_nats.executor.children.pool.STALL", 60.0)
        (child,) = roster(pool).active
        short = asyncio.create_task(pool.submit(jobs.work, notes.path, "short"))
        long = asyncio.create_task(pool.submit(jobs.work, notes.path, "long", 30))
        await asyncio.sleep(0)
        stop_reading(child)
        limit = time.monotonic() + 10
        while "long" not in notes.lines():
            assert time.monotonic() < limit
            await asyncio.sleep(0)
        assert child.doomed is None
        assert len(child.inflight) == 2
        long.cancel()
        await asyncio.sleep(0)
        short.cancel()
        await asyncio.gather(short, long, return_exceptions=True)
        read_again(child)
        assert await asyncio.wait_for(pool.submit(jobs.pid), 3) != child.pid
        await until(lambda: not alive(child.pid), 2)


async def test_neighbours_of_a_stuck_thread_finish(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1, threads=3, cancel_grace=0.2, spares=1) as pool:
        stuck = asyncio.create_task(pool.submit(jobs.spin, notes.path))
        pid = int((await notes.wait())[0])
        neighbour = asyncio.create_task(pool.submit(jobs.work, notes.path, "n", 2.0))
        await notes.wait(2)
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert not neighbour.done()  # at once, not when its neighbours have ended
        assert await neighbour == "n"
        await until(lambda: not alive(pid), 3)
        assert await pool.submit(jobs.pid) != pid


async def test_a_thread_that_looks_is_freed_without_losing_the_child(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=1, threads=2, spares=0) as pool:
        pid = await pool.submit(jobs.pid)
        call = asyncio.create_task(pool.submit(jobs.cooperate, notes.path))
        await notes.wait()
        call.cancel()
        assert await notes.wait(2) == ["began", "cancelled"]
        await until(lambda: pool.metrics["busy"] == 0)
        assert await pool.submit(jobs.pid) == pid


async def test_an_async_function_that_will_not_end(notes: Notes, tmp_path: Path) -> None:
    async with AsyncProcessExecutor("p", max_workers=1, concurrency=4, cancel_grace=0.2) as pool:
        pid = await pool.submit(jobs.pid)
        stuck = asyncio.create_task(pool.submit(jobs.async_stubborn, notes.path, str(tmp_path / "never")))
        await notes.wait()
        neighbour = asyncio.create_task(pool.submit(jobs.async_work, notes.path, "n", 0.8))
        await notes.wait(2)
        stuck.cancel()
        assert await neighbour == "n"
        await until(lambda: not alive(pid), 3)
        assert await pool.submit(jobs.pid) != pid


async def test_an_async_call_that_is_cancelled_before_it_began_is_answered(
    notes: Notes, tmp_path: Path
) -> None:
    """Call and cancel reach a child whose event loop is busy, and are read together."""
    release = tmp_path / "release"
    async with AsyncProcessExecutor("p", max_workers=1, concurrency=4, cancel_grace=60) as pool:
        (child,) = roster(pool).active
        busy = asyncio.create_task(pool.submit(jobs.async_hold, notes.path, str(release)))
        await notes.wait()
        call = asyncio.create_task(pool.submit(jobs.async_work, notes.path, "never"))
        await until(lambda: len(child.inflight) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        release.touch()
        await asyncio.wait_for(busy, 10)
        await until(lambda: not child.inflight)
        assert "never" not in notes.lines()
        assert roster(pool).active == [child]


async def test_an_async_function_is_cancelled(notes: Notes) -> None:
    async with AsyncProcessExecutor("p", max_workers=1, concurrency=2, spares=0) as pool:
        pid = await pool.submit(jobs.pid)
        with pytest.raises(CallTimeoutError):
            await pool(timeout=0.1)(jobs.async_work)(notes.path, "x", 30)
        await until(lambda: pool.metrics["busy"] == 0)
        assert await pool.submit(jobs.pid) == pid


async def test_a_shared_child_that_dies_takes_its_calls_only(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=2, threads=2, spares=1) as pool:
        calls = [asyncio.create_task(pool.submit(jobs.work, notes.path, n, 0.5)) for n in range(4)]
        await notes.wait(4)
        calls.append(asyncio.create_task(pool.submit(jobs.work, notes.path, "queued")))
        victim = roster(pool).active[0].pid
        os.kill(victim, signal.SIGKILL)
        outcomes: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, WorkerLostError) for outcome in outcomes) == 2
        assert outcomes[-1] == "queued"
        assert notes.most() == 1
        await until(lambda: len(children(pool)) == 2)
