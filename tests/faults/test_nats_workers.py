"""Workers that die, stop, freeze and leave, as their callers see it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time

import pytest

from genro_nats import CallTimeoutError, ConnectionLostError, NoWorkersError, WorkerLostError
from genro_nats.executor.nats_silence import SILENCE
from tests.faults import jobs
from tests.faults.conftest import ROOT, Fleet, Notes, alive, soonest, until

pytestmark = pytest.mark.anyio


async def test_a_killed_worker_is_noticed_by_its_silence(shared_fleet: Fleet, notes: Notes) -> None:
    worker = await shared_fleet.worker()
    pool = shared_fleet.caller()
    running = asyncio.create_task(pool.submit(jobs.work, notes.path, "a", 60))
    await notes.wait()
    worker.signal(signal.SIGKILL)
    begin = time.monotonic()
    other = await shared_fleet.worker()
    # The fleet goes on at once; who was running is told after the silence.
    assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, "b"), 2) == "b"
    with pytest.raises(WorkerLostError, match="silent"):
        await asyncio.wait_for(running, 8)
    assert time.monotonic() - begin < SILENCE + 1.5
    assert notes.most() == 1
    assert other.process.poll() is None


async def test_a_child_killed_on_a_worker(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker()
    pool = shared_fleet.caller()
    with pytest.raises(WorkerLostError, match="SIGSEGV"):
        await asyncio.wait_for(pool.submit(jobs.segfault), 5)
    with pytest.raises(WorkerLostError, match="code 5"):
        await asyncio.wait_for(pool.submit(jobs.exit_now, 5), 5)
    assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, "x"), 5) == "x"


async def test_without_workers_it_takes_one_round_trip(shared_fleet: Fleet) -> None:
    pool = shared_fleet.caller()
    await pool.start()

    async def nobody() -> float:
        begin = time.monotonic()
        with pytest.raises(NoWorkersError, match=r"genro-nats worker --url \S+ --subject faults"):
            await pool.submit(jobs.pid)
        return time.monotonic() - begin

    await soonest(nobody, 0.2)
    for number in (signal.SIGTERM, signal.SIGKILL):
        worker = await shared_fleet.worker()
        assert await pool.submit(jobs.pid)
        worker.signal(number)
        await worker.ended()
        await soonest(nobody, 0.2)


async def test_draining_under_load_fails_no_call(shared_fleet: Fleet, notes: Notes) -> None:
    first = await shared_fleet.worker()
    second = await shared_fleet.worker()
    pool = shared_fleet.caller()
    keys = [f"{n}" for n in range(600)]
    stopped = asyncio.Event()

    async def lane(mine: list[str]) -> list[str]:
        results = []
        for key in mine:
            results.append(await pool.submit(jobs.work, notes.path, key, 0.002))
            if len(notes.lines()) > 150:
                stopped.set()
        return results

    lanes = [asyncio.create_task(lane(keys[n::20])) for n in range(20)]
    await asyncio.wait_for(stopped.wait(), 10)
    first.signal(signal.SIGTERM)
    results = await asyncio.wait_for(asyncio.gather(*lanes), 20)
    assert sorted(key for mine in results for key in mine) == sorted(keys)
    assert notes.most() == 1
    assert await first.ended() == 0
    assert second.process.poll() is None


async def test_what_a_leaving_worker_has_not_started_moves(shared_fleet: Fleet, notes: Notes) -> None:
    first = await shared_fleet.worker(max_workers=1, drain_timeout=0.3)
    pool = shared_fleet.caller()
    running = asyncio.create_task(pool.submit(jobs.work, notes.path, "running", 60))
    await notes.wait()
    queued = [asyncio.create_task(pool.submit(jobs.work, notes.path, f"q{n}")) for n in range(10)]
    await shared_fleet.worker()
    first.signal(signal.SIGTERM)
    assert await asyncio.wait_for(asyncio.gather(*queued), 5) == [f"q{n}" for n in range(10)]
    with pytest.raises(WorkerLostError, match="shut down"):
        await asyncio.wait_for(running, 5)
    assert await first.ended() == 1
    assert notes.most() == 1


async def test_a_second_signal_leaves_at_once(shared_fleet: Fleet, notes: Notes) -> None:
    first = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    running = asyncio.create_task(pool.submit(jobs.work, notes.path, "running", 60))
    await notes.wait()
    queued = asyncio.create_task(pool.submit(jobs.work, notes.path, "queued"))
    await shared_fleet.worker()
    first.signal(signal.SIGTERM)
    await until(lambda: first.count("worker.draining"))
    first.signal(signal.SIGTERM)
    assert await first.ended(5) == 1
    assert await asyncio.wait_for(queued, 5) == "queued"
    with pytest.raises(WorkerLostError):
        await asyncio.wait_for(running, 7)


async def test_a_frozen_worker_counts_as_lost_and_may_come_back(shared_fleet: Fleet, notes: Notes) -> None:
    worker = await shared_fleet.worker()
    pool = shared_fleet.caller()
    running = asyncio.create_task(pool.submit(jobs.work, notes.path, "a", 1.0))
    await notes.wait()
    worker.signal(signal.SIGSTOP)
    with pytest.raises(WorkerLostError):
        await asyncio.wait_for(running, SILENCE + 2)
    worker.signal(signal.SIGCONT)
    assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, "b"), 5) == "b"
    assert notes.most() == 1


async def test_cancel_and_deadline_reach_the_worker(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    assert 4 < await pool(timeout=5)(jobs.remaining)() <= 5
    call = asyncio.create_task(pool.submit(jobs.spin, notes.path))
    pid = int((await notes.wait())[0])
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not alive(pid), 2)
    with pytest.raises(CallTimeoutError):
        await pool(timeout=0.3)(jobs.spin)(notes.path)
    pid = int((await notes.wait(2))[1])
    await until(lambda: not alive(pid), 2)
    assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, "x"), 5) == "x"


CALLER = """
import asyncio, sys
from genro_nats import NatsExecutor, PoolOptions
from tests.faults import jobs

async def main(url, user, password, prefix, path):
    options = PoolOptions(url=(url,), user=user, password=password, prefix=prefix, subject="faults")
    pool = NatsExecutor("faults", options)
    await asyncio.gather(*(pool.submit(jobs.work, path, n, 0.5) for n in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_caller_leaves_a_working_worker(shared_fleet: Fleet, notes: Notes) -> None:
    worker = await shared_fleet.worker()
    server = shared_fleet.server
    arguments = [server.url, server.user, server.password, shared_fleet.prefix, notes.path]
    caller = subprocess.Popen([sys.executable, "-c", CALLER, *arguments], cwd=ROOT)
    try:
        await notes.wait(2)
    finally:
        caller.kill()
        caller.wait(5)
    assert await asyncio.wait_for(shared_fleet.caller().submit(jobs.work, notes.path, "x"), 5) == "x"
    assert notes.most() == 1
    worker.signal(signal.SIGTERM)
    assert await worker.ended(10) == 0


async def test_a_wrong_password_is_named_and_not_shown(shared_fleet: Fleet) -> None:
    pool = shared_fleet.caller()
    options = pool.options.__class__(
        subject="x", url=(shared_fleet.server.url,), user=shared_fleet.server.user, password="s3cret-wrong"
    )
    wrong = pool.__class__("wrong", options)
    begin = time.monotonic()
    with pytest.raises(ConnectionLostError, match="refused the credentials") as failed:
        await wrong.submit(jobs.pid)
    assert time.monotonic() - begin < 2
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize("how", ["refused", "mute"])
async def test_no_server_at_the_start(how: str, shared_fleet: Fleet) -> None:
    listening = socket.create_server(("127.0.0.1", 0))  # connects, and says nothing
    port = listening.getsockname()[1]
    if how == "refused":
        listening.close()
    kind = type(shared_fleet.caller())
    options = type(shared_fleet.caller().options)
    pool = kind("x", options(subject="x", url=(f"nats://127.0.0.1:{port}",), connect_timeout=1.0))
    begin = time.monotonic()
    with pytest.raises(ConnectionLostError, match="genro-nats server"):
        await pool.submit(jobs.pid)
    assert 0.9 < time.monotonic() - begin < 4  # and not the 5 s that are the default
    listening.close()
