"""Safeguards that larger scenarios pass without, each made to be needed alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genro_nats.errors import NoWorkersError
from genro_nats.executor.nats_tasks.lookup import Lookup
from genro_nats.executor.nats_tasks.watch import Watch
from genro_nats.tasks.record import Record, Stored, pack
from genro_nats.tasks.status import TaskState
from genro_nats.transport import shared
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Fleet, Notes
from tests.faults.durable import TaskFleet

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_progress_stored_after_the_first_look_is_shown_too(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told before anybody listened, and nothing follows it."""
    await shared_tasks.worker()
    release = tmp_path / "release"
    task = await shared_tasks.caller().enqueue(task_jobs.go_on, notes.path, str(release), 1)
    await notes.wait(2)
    real = Lookup.status

    async def before(self: Lookup, id: str) -> Any:
        status, seq = await real(self, id)
        return replace(status, progress=None), seq

    async with asyncio.timeout(15):
        while (await task.status()).progress is None:
            await asyncio.sleep(0.02)
        monkeypatch.setattr(Lookup, "status", before)
        watch = task.watch()
        assert (await anext(watch)).progress is None
        progress = (await anext(watch)).progress
        assert progress is not None
        assert progress.text == "step 0"
    release.touch()


async def test_progress_is_not_taken_back_when_its_attempt_is_told_again(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its worker, which tells that it has begun, and then that it holds it."""
    await shared_tasks.worker()
    release = tmp_path / "release"
    task = await shared_tasks.caller().enqueue(task_jobs.go_on, notes.path, str(release), 1)
    begun: list[Watch] = []
    start = Watch.start

    async def seen(self: Watch) -> None:
        begun.append(self)
        await start(self)

    monkeypatch.setattr(Watch, "start", seen)
    async with asyncio.timeout(15), contextlib.aclosing(task.watch()) as statuses:
        async for status in statuses:
            if status.progress is not None:
                break
        again = Record(TaskState.RUNNING, status.created_at, attempts=status.attempts)
        begun[0]._told(Stored(pack(again), 1 << 40))
        assert (await anext(statuses)).progress == status.progress
        other = Record(TaskState.RUNNING, status.created_at, attempts=status.attempts + 1)
        begun[0]._told(Stored(pack(other), 1 << 41))
        assert (await anext(statuses)).progress is None
    release.touch()


@pytest.mark.parametrize("megabytes", [1, 8])
def test_much_shared_memory_is_freed_beside_the_event_loop(
    megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = shared.StoredFrame()
    frame.write(memoryview(bytes(megabytes << 20)))
    fd, real, freed = frame.fd, os.close, threading.Event()
    where: list[int] = []

    def close(number: int) -> None:
        real(number)
        if number == fd:
            where.append(threading.get_ident())
            freed.set()

    monkeypatch.setattr(os, "close", close)
    del frame
    assert freed.wait(10)
    assert (where == [threading.get_ident()]) is (megabytes < 8)


async def test_nobody_there_is_not_the_end_at_a_server_that_leaves(shared_fleet: Fleet) -> None:
    pool: Any = shared_fleet.caller(timeout=20)
    await pool.start()
    engine = pool._home.engine
    tried = asyncio.Event()
    real, count = engine._nobody_there, 0

    def nobody_there(message: Any) -> None:
        nonlocal count
        count += 1
        real(message)
        if count >= 3:
            tried.set()

    engine._nobody_there = nobody_there
    engine._connection.lame = True
    call = asyncio.create_task(pool.submit(jobs.note, "nowhere", 1))
    async with asyncio.timeout(10):
        await tried.wait()
        assert not call.done()
        engine._connection.lame = False
        with pytest.raises(NoWorkersError):
            await call
