"""The server goes away and comes back: each call ends in a result or a named error, none hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from genro_nats import CallTimeoutError, ConnectionLostError, ExecutorError, NoWorkersError
from tests.faults import jobs
from tests.faults.conftest import Fleet, Notes, until

pytestmark = pytest.mark.anyio


async def test_a_reply_made_during_the_outage_arrives_after_it(
    fleet: Fleet, notes: Notes, tmp_path: Path
) -> None:
    worker = await fleet.worker()
    pool = fleet.caller(timeout=20)
    release = tmp_path / "release"
    call = asyncio.create_task(pool.submit(jobs.fail_after, notes.path, str(release)))
    await notes.wait()
    fleet.server.kill()
    await until(lambda: not pool.metrics["connected"] and worker.count("server.down"))
    new = asyncio.create_task(pool.submit(jobs.work, notes.path, "new"))
    release.touch()
    await until(lambda: worker.count("call.failed"))  # a worker tells of failures only
    await asyncio.to_thread(fleet.server.restart)
    begin = time.monotonic()
    with pytest.raises(ValueError, match="as it was told"):
        await asyncio.wait_for(call, 10)
    assert await asyncio.wait_for(new, 10) == "new"
    assert time.monotonic() - begin < 6
    assert notes.most() == 1


async def test_calls_in_flight_during_restarts_all_end(fleet: Fleet, notes: Notes) -> None:
    await fleet.worker()
    pool = fleet.caller(timeout=12)
    outcomes: Counter[str] = Counter()
    stop = asyncio.Event()

    async def lane(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            key = f"{number}.{turn}"
            try:
                assert await pool.submit(jobs.work, notes.path, key, 0.005) == key
                outcomes["ok"] += 1
            except ExecutorError as error:
                outcomes[type(error).__name__] += 1

    await pool.start()
    lanes = [asyncio.create_task(lane(number)) for number in range(20)]
    for _ in range(3):
        count = outcomes["ok"]
        await until(lambda: outcomes["ok"] > count + 50)  # noqa: B023
        fleet.server.kill()
        await asyncio.to_thread(fleet.server.restart)
    count = outcomes["ok"]
    await until(lambda: outcomes["ok"] > count + 50)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*lanes), 13)
    assert notes.most() == 1
    assert not outcomes.keys() - {"ok", "WorkerLostError", "ConnectionLostError"}
    assert outcomes["ok"] > 200
    assert pool.metrics["pending"] == 0


async def test_a_server_that_stays_away(fleet: Fleet, notes: Notes) -> None:
    await fleet.worker()
    pool = fleet.caller(disconnect_timeout=1.5)
    call = asyncio.create_task(pool.submit(jobs.work, notes.path, "a", 60))
    await notes.wait()
    fleet.server.kill()
    await until(lambda: not pool.metrics["connected"])
    with pytest.raises(CallTimeoutError):
        await pool(timeout=0.3)(jobs.pid)()
    with pytest.raises(ConnectionLostError, match=r"has been away for 1\.5 s"):
        await asyncio.wait_for(call, 4)
    begin = time.monotonic()
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(pool.submit(jobs.pid), 4)
    assert time.monotonic() - begin < 2.5
    task = asyncio.create_task(pool.submit(jobs.pid))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(fleet.server.restart)
    await until(lambda: pool.metrics["connected"])
    assert await asyncio.wait_for(pool(timeout=10)(jobs.work)(notes.path, "b"), 10) == "b"


async def test_a_frozen_server(fleet: Fleet, notes: Notes) -> None:
    """It takes bytes and says nothing: the silence limit and the deadline hold all the same."""
    await fleet.worker()
    pool = fleet.caller()
    call = asyncio.create_task(pool.submit(jobs.work, notes.path, "a", 60))
    await notes.wait()
    os.kill(fleet.server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(CallTimeoutError):
            await asyncio.wait_for(pool(timeout=0.5)(jobs.pid)(), 3)
        with pytest.raises(ExecutorError):
            await asyncio.wait_for(call, 8)
    finally:
        os.kill(fleet.server.pid, signal.SIGCONT)
    assert await asyncio.wait_for(pool(timeout=10)(jobs.pid)(), 10)


async def test_a_stream_over_a_restart_ends(fleet: Fleet, notes: Notes) -> None:
    await fleet.worker()
    pool = fleet.caller()
    seen: list[int] = []

    async def take() -> None:
        async for number in pool(jobs.numbers).stream(notes.path, 10_000_000):
            seen.append(number)
            if len(seen) == 100:
                fleet.server.kill()
                await asyncio.to_thread(fleet.server.restart)

    with pytest.raises(ConnectionLostError, match="items may be missing"):
        await asyncio.wait_for(take(), 8)
    assert seen == list(range(len(seen)))
    assert len(seen) >= 100
    await notes.wait()
    assert await asyncio.wait_for(pool.submit(jobs.pid), 5)


async def test_a_worker_leaves_while_the_server_is_away(fleet: Fleet) -> None:
    worker = await fleet.worker()
    fleet.server.kill()
    await until(lambda: worker.count("server.down"))
    worker.signal(signal.SIGTERM)
    assert await worker.ended(6) == 0


async def test_workers_that_return_late_are_waited_for(fleet: Fleet) -> None:
    """After a restart the caller may be back before the workers: no NoWorkersError for that."""
    worker = await fleet.worker()
    pool = fleet.caller()
    assert await pool.submit(jobs.pid)
    worker.signal(signal.SIGSTOP)
    fleet.server.kill()
    await until(lambda: not pool.metrics["connected"])
    await asyncio.to_thread(fleet.server.restart)
    await until(lambda: pool.metrics["connected"])
    call = asyncio.create_task(pool.submit(jobs.pid))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(call), 0.3)
    worker.signal(signal.SIGCONT)
    assert await asyncio.wait_for(call, 5)
    worker.signal(signal.SIGKILL)
    await worker.ended()
    with pytest.raises((NoWorkersError, CallTimeoutError)):
        await pool(timeout=7)(jobs.pid)()
