"""A caller whose clock is an hour wrong: delays and deadlines are relative, or in the server's time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.faults.conftest import ROOT, Notes
from tests.faults.durable import LEASE, TaskFleet

pytestmark = pytest.mark.anyio

CALLER = """
import asyncio, datetime, json, sys, time

shift = float(sys.argv[1])
real = time.time
time.time = lambda: real() + shift
time.time_ns = lambda: int((real() + shift) * 1e9)
_datetime = datetime.datetime
class Shifted(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=shift)
datetime.datetime = Shifted

from genro_nats import NatsExecutor, PoolOptions
from genro_nats.errors import TaskFailedError
from tests.faults import task_jobs

async def main(url, user, password, prefix, path, lease):
    options = PoolOptions(url=(url,), user=user, password=password, prefix=prefix, subject="faults",
                          lease=float(lease))
    pool = NatsExecutor("faults", options)
    clock = pool(task_jobs.clock)
    found = {"begun": real()}
    delayed = await clock.options(delay=1.0, expires=5.0).enqueue()
    soon = await clock.options(expires=5.0).enqueue()
    retried = await pool(task_jobs.fail_once).options(retries=1, backoff=0.5, expires=5.0).enqueue(path)
    at = await clock.options(at=real() + 1.0).enqueue()
    found["delayed"] = await delayed.result(timeout=10)
    found["soon"] = await soon.result(timeout=10)
    found["retried"] = await retried.result(timeout=10)
    found["at"] = await at.result(timeout=10)
    status = await delayed.status()
    found["created"], found["started"] = status.created_at, status.started_at
    late = await clock.options(delay=3600).enqueue()
    found["scheduled"] = (await late.status()).state
    found["cancelled"] = await late.cancel()
    print(json.dumps(found))

asyncio.run(main(*sys.argv[2:]))
"""


@pytest.mark.parametrize("shift", [-3600, 3600])
async def test_a_caller_whose_clock_is_an_hour_wrong(
    shift: int, shared_tasks: TaskFleet, notes: Notes
) -> None:
    await shared_tasks.worker()
    server = shared_tasks.server
    access = [server.url, server.user, server.password, shared_tasks.prefix, notes.path, str(LEASE)]
    caller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, str(shift), *access, cwd=ROOT, stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(caller.communicate(), 30)
    assert caller.returncode == 0
    found: dict[str, Any] = json.loads(out)
    slow = 20  # seconds: a busy machine; a wrong clock would make it an hour
    assert 0.9 < found["delayed"] - found["begun"] < slow
    assert found["soon"] - found["begun"] < slow
    assert found["retried"] == 2
    assert 0.9 < found["at"] - found["begun"] < slow  # "at" is a moment, and the server's clock is right
    assert abs(found["created"] - found["begun"]) < slow
    assert abs(found["started"] - found["delayed"]) < slow
    assert found["scheduled"] == "scheduled"
    assert found["cancelled"] is True
    assert abs(time.time() - found["started"]) < 2 * slow
