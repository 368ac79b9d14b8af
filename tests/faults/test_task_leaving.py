"""Workers that leave, freeze and come back while they hold durable tasks."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.faults import jobs, task_jobs
from tests.faults.conftest import Notes, until
from tests.faults.durable import LEASE, TaskFleet

pytestmark = pytest.mark.anyio


async def test_draining_under_load_loses_no_task(shared_tasks: TaskFleet, notes: Notes) -> None:
    first = await shared_tasks.worker()
    await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        items = [(notes.path, n, 0.3 if n % 50 == 0 else 0.005) for n in range(400)]
        tasks = await pool(task_jobs.work_item).enqueue_many(items)
        await notes.wait(50)
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        assert await asyncio.gather(*(task.result(timeout=30) for task in tasks)) == list(range(400))
        assert await ledger.check(task.id for task in tasks) == {"completed": 400}
        assert notes.most() == 1
        assert not any(record.deaths for states in ledger.history.values() for record in states)


async def test_what_waits_in_a_leaving_worker_moves_at_once(shared_tasks: TaskFleet, notes: Notes) -> None:
    shared_tasks.lease = 30.0
    first = await shared_tasks.worker(max_workers=1, drain_timeout=20)
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        # Short ones are taken ahead, and then one of them is not short.
        for n in range(30):
            await (await pool.enqueue(task_jobs.sometimes, notes.path, n)).result(timeout=10)
        long = await pool.enqueue(task_jobs.sometimes, notes.path, "long", 8)
        await notes.wait(31)
        queued = [await pool.enqueue(task_jobs.sometimes, notes.path, f"q{n}") for n in range(20)]
        await shared_tasks.worker()
        begin = time.monotonic()
        first.signal(signal.SIGTERM)
        results = await asyncio.gather(*(task.result(timeout=20) for task in queued))
        assert results == [f"q{n}" for n in range(20)]
        assert time.monotonic() - begin < 1.5
        assert await long.result(timeout=20) == "long"
        assert await first.ended() == 0
        await ledger.check([long.id, *(task.id for task in queued)])
        assert notes.most() == 1


async def test_what_runs_longer_than_the_drain_goes_to_another(shared_tasks: TaskFleet, notes: Notes) -> None:
    """At once, not after the lease, and not as a death."""
    shared_tasks.lease = 30.0
    first = await shared_tasks.worker(max_workers=1, drain_timeout=0.5)
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.work, notes.path, "x", 3)
        await notes.wait()
        call = asyncio.create_task(pool.submit(jobs.work, notes.path, "call", 0))  # waits beside it
        await shared_tasks.worker(max_workers=1)
        begin = time.monotonic()
        first.signal(signal.SIGTERM)
        assert await first.ended() == 1
        await until(lambda: notes.counts()["x"] == 2, 5)
        assert time.monotonic() - begin < 3
        assert await task.result(timeout=10) == "x"
        assert await asyncio.wait_for(call, 5) == "call"
        record = await ledger.outcome(task.id)
        assert (record.attempts, record.deaths) == (2, 0)
        assert await ledger.check([task.id]) == {"completed": 1}
        assert "Traceback" not in first.log.with_suffix(".err").read_text()


async def test_a_second_signal_gives_tasks_back_at_once(shared_tasks: TaskFleet, notes: Notes) -> None:
    shared_tasks.lease = 30.0
    first = await shared_tasks.worker(max_workers=1)
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.work, notes.path, "x", 2)
        await notes.wait()
        first.signal(signal.SIGTERM)
        await until(lambda: first.count("worker.draining"))
        first.signal(signal.SIGTERM)
        assert await first.ended(5) == 1
        await shared_tasks.worker(max_workers=1)
        assert await task.result(timeout=10) == "x"
        assert (await ledger.outcome(task.id)).deaths == 0
        assert await ledger.check([task.id]) == {"completed": 1}


async def test_a_frozen_worker_s_late_outcome_is_fenced_off(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    first = await shared_tasks.worker(max_workers=1)
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        release = tmp_path / "release"
        task = await pool.enqueue(task_jobs.go_on, notes.path, str(release), 3)
        # Its child goes on while the worker is frozen: its outcome waits in the socket.
        await notes.wait(2)
        first.signal(signal.SIGSTOP)
        await shared_tasks.worker(max_workers=1)
        await until(lambda: len(notes.lines()) >= 4, LEASE + 5)
        release.touch()
        assert await task.result(timeout=10) == [0, 1, 2]
        before = await ledger.store.load(task.id)
        first.signal(signal.SIGCONT)
        await until(lambda: first.count("task.fenced"), 10)
        after = await ledger.store.load(task.id)
        assert before is not None and after is not None
        assert (before.seq, before.outcome) == (after.seq, after.outcome)
        assert (after.record.attempts, after.record.deaths) == (2, 1)
        assert await ledger.check([task.id]) == {"completed": 1}
        assert first.process.poll() is None
        # It serves on.
        assert await (await pool.enqueue(task_jobs.work, notes.path, "on")).result(timeout=10) == "on"


async def test_a_frozen_worker_s_late_checkpoint_is_fenced_off(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    """It must not undo what the newer attempt has kept."""
    first = await shared_tasks.worker(max_workers=1)
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.keep_attempt, notes.path, str(tmp_path))
        await notes.wait()
        first.signal(signal.SIGSTOP)
        (tmp_path / "1").touch()  # the first attempt's checkpoint is in the socket by now
        second = await shared_tasks.worker(max_workers=1)
        await until(lambda: "begin 2" in notes.lines(), LEASE + 5)
        (tmp_path / "2").touch()
        await until(lambda: "kept 2" in notes.lines() and "kept 1" in notes.lines())

        async def kept() -> bytes | None:
            return await ledger.store.noted("note", "checkpoint", task.id)

        newest = await _stays(kept)
        first.signal(signal.SIGCONT)
        (tmp_path / "end").touch()
        await until(lambda: first.count("task.fenced"), 10)
        assert await _stays(kept) == newest
        assert second.count("task.fenced") == 0
        assert await ledger.check([task.id]) == {"completed": 1}


async def _stays(look: object) -> object:
    """What is there once it does not change for a while."""
    last, since = await look(), time.monotonic()  # type: ignore[operator]
    while time.monotonic() - since < 0.5 or last is None:
        await asyncio.sleep(0.02)
        now = await look()  # type: ignore[operator]
        if now != last:
            last, since = now, time.monotonic()
    return last
