"""``--nats=docker``: the server fixture in a container, as users have it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docker.engine import ROOT

CODE = """
import asyncio, os
from genro_nats import NatsExecutor

async def main(options):
    async with NatsExecutor("mine", subject="t", **options) as pool:
        task = await pool(os.getpid).enqueue()
        return await pool.submit(os.getpid), await task.result(timeout=30)

def test_calls_and_tasks(nats_server, nats_options, nats_worker):
    assert nats_server.embedded is None
    worker = nats_worker("t", max_workers=1)
    call, task = asyncio.run(main(nats_options))
    assert call == task not in (os.getpid(), worker.pid)
"""


def test_the_server_of_a_session_runs_in_a_container(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(CODE)
    reachable = {"TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1", "TESTCONTAINERS_RYUK_DISABLED": "true"}
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "--nats=docker", "test_theirs.py"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **reachable},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
