"""Calls sent ahead move away from behind a call that turns out long; none runs twice."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from genro_nats import CallTimeoutError, ProcessExecutor
from tests.faults import jobs
from tests.faults.conftest import Notes, children, roster, until

pytestmark = pytest.mark.anyio


async def test_no_short_call_waits_behind_a_long_one_while_a_child_is_idle(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=2, spares=0) as pool:
        for _ in range(3):
            for _n in range(200):
                await pool.submit(jobs.nap, 0)
            long = asyncio.create_task(pool.submit(jobs.nap, 2.0))
            short = [asyncio.create_task(pool.submit(jobs.nap, 0)) for _ in range(15)]
            await asyncio.gather(*short)
            assert not long.done()
            await long


async def test_when_long_ones_hide_among_many(notes: Notes) -> None:
    rng = random.Random(11)
    async with ProcessExecutor("p", max_workers=2, spares=1) as pool:
        for n in range(20):
            await pool.submit(jobs.work, notes.path, f"warm{n}")
        for turn in range(4):
            keys = [f"{turn}.{n}" for n in range(250)]
            long = set(rng.sample(keys, 6))
            begin = time.monotonic()
            calls = [pool.submit(jobs.work, notes.path, key, 0.08 if key in long else 0.0) for key in keys]
            assert await asyncio.wait_for(asyncio.gather(*calls), 20) == keys
            # 6 x 80 ms over two children, and the rest.
            assert time.monotonic() - begin < 0.24 * 1.8 + 0.4
        assert notes.most() == 1
        assert roster(pool).lost == 0
        assert len(children(pool)) == 2


async def test_stealing_with_cancels_and_recycling(notes: Notes) -> None:
    rng = random.Random(5)
    async with ProcessExecutor("p", max_workers=2, spares=2, max_tasks_per_child=40) as pool:
        calls = []
        for n in range(800):
            seconds = 0.02 if rng.random() < 0.02 else 0.0
            calls.append(asyncio.create_task(pool.submit(jobs.work, notes.path, f"{n}", seconds)))
            if n % 20 == 19:
                rng.choice(calls).cancel()
                await asyncio.sleep(rng.uniform(0, 0.01))
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
        for n, outcome in enumerate(outcomes):
            assert outcome == f"{n}" or (isinstance(outcome, asyncio.CancelledError) and calls[n].cancelled())
        assert notes.most() == 1
        assert pool.metrics["busy"] == 0


async def test_all_that_has_not_started_can_be_taken_back(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ProcessExecutor("p", max_workers=1, spares=0) as pool:
        await pool.start()
        assert pool._home is not None
        inner: Any = pool._home.engine._pool  # type: ignore[attr-defined]
        monkeypatch.setattr(inner._short, "is_short", lambda key: True)
        head = asyncio.create_task(pool.submit(jobs.work, notes.path, "head", 0.3))
        later = [asyncio.create_task(pool(timeout=0.2)(jobs.work)(notes.path, f"{n}")) for n in range(30)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        order = [*inner.roster.active[0].inflight.values(), *inner.queue]
        assert len(order) == 31
        assert len(inner.queue) < 30
        works = inner.take_unstarted()
        assert works == order[1:]
        assert not inner.queue
        assert await head == "head"
        # Also where this process stood still for a moment between the head's start and the others'.
        await until(lambda: asyncio.get_running_loop().time() > max(work.deadline for work in works))
        assert not any(work.done or work.child or work.timer for work in works)
        assert not any(task.done() for task in later)
        assert notes.lines() == ["head"]
        for work in works:
            inner.run(work)
        ends = await asyncio.gather(*later, return_exceptions=True)
        assert [type(end) for end in ends] == [CallTimeoutError] * len(later)


async def test_a_child_is_sent_nothing_until_it_has_skipped_what_was_taken_back(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would take the token of the new call for one that runs elsewhere by now: twice."""
    async with ProcessExecutor("p", max_workers=1, spares=0) as pool:
        await pool.start()
        assert pool._home is not None
        inner: Any = pool._home.engine._pool  # type: ignore[attr-defined]
        monkeypatch.setattr(inner._short, "is_short", lambda key: True)
        (child,) = inner.roster.active
        calls = [asyncio.create_task(pool.submit(jobs.work, notes.path, "head", 0.5))]
        calls += [asyncio.create_task(pool.submit(jobs.work, notes.path, f"{n}")) for n in range(6)]
        await until(lambda: len(child.inflight) == 1 and len(inner.queue) == 6)
        assert child.paused
        await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert not child.paused
        assert notes.most() == 1
        assert sorted(notes.lines()) == sorted(["head", *map(str, range(6))])
