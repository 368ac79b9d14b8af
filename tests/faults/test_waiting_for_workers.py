"""``workers_timeout``: calls made while nobody serves the pool wait for who comes."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from genro_nats import CallTimeoutError, NoWorkersError
from tests.faults import jobs
from tests.faults.conftest import Fleet, Notes

pytestmark = pytest.mark.anyio


async def test_calls_wait_for_the_next_worker(shared_fleet: Fleet, notes: Notes) -> None:
    """As when a whole fleet is replaced: nobody serves, and then somebody does."""
    old = await shared_fleet.worker()
    pool = shared_fleet.caller(workers_timeout=60)
    assert await pool.submit(jobs.pid)
    old.signal(signal.SIGTERM)
    await old.ended()
    calls = [asyncio.create_task(pool.submit(jobs.work, notes.path, str(n))) for n in range(20)]
    done, _ = await asyncio.wait(calls, timeout=0.5)
    assert not done
    calls[0].cancel()
    await shared_fleet.worker()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*calls[1:]) == [str(n) for n in range(1, 20)]
    assert notes.most() == 1
    assert notes.counts()["0"] == 0


async def test_it_ends_and_so_does_the_deadline(shared_fleet: Fleet) -> None:
    began = time.monotonic()
    async with asyncio.timeout(20):
        with pytest.raises(NoWorkersError):
            await shared_fleet.caller(workers_timeout=0.3).submit(jobs.pid)
    assert 0.3 <= time.monotonic() - began < 5
    pool = shared_fleet.caller(workers_timeout=60)
    with pytest.raises(CallTimeoutError):
        await pool(timeout=0.3)(jobs.pid)()
