"""``workers/``: the sample worker serves the sample functions, called by a program that imports them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

from genro_nats.server import EmbeddedServer
from tests.cli.conftest import ROOT, Running, environment

CALLER = """
import asyncio, tasks

async def main():
    seen = []
    found = await tasks.primes.options(on_progress=seen.append)(1000)
    pieces = [piece async for piece in tasks.chunks.stream("abcde", 2)]
    print(len(found), seen[-1].fraction > 0, pieces, len(await tasks.fingerprint(tasks.__file__)))
    await tasks.executors.shutdown_all()

asyncio.run(main())
"""


def test_the_sample_worker_serves_the_sample_functions(
    worker: Callable[..., Running], server: EmbeddedServer
) -> None:
    running = worker("--config", "workers/worker.toml", "--processes", "1", "--prefix", "samples")
    running.logged("worker.ready", times=2)
    remote = '{"kind": "nats", "url": "embedded", "prefix": "samples"}'
    more = {
        "GENRO_NATS_HOME": str(server.directory),
        "GENRO_POOL_HEAVY": remote,
        "GENRO_POOL_IO": remote,
    }
    caller = subprocess.run(
        [sys.executable, "-c", CALLER],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        cwd=ROOT / "workers",
        env=environment(**more),
    )
    assert (caller.stdout, caller.stderr) == ("168 True ['ab', 'cd', 'e'] 64\n", "")
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0
