"""``workers/``: the sample worker serves the sample functions, called by a program that imports them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from genro_nats.server import EmbeddedServer
from tests.cli.conftest import ROOT, Running, environment

CALLER = """
import asyncio, pathlib, sys, samples as tasks
from genro_nats.codec.functions import unwrap
from genro_nats.message import CallContext, running_call

async def main():
    seen = []
    found = await tasks.primes.options(on_progress=seen.append)(1000)
    pieces = [piece async for piece in tasks.chunks.stream("abcde", 2)]
    print(len(found), seen[-1].fraction > 0, pieces, len(await tasks.fingerprint(tasks.__file__)))
    seen.clear()
    chain = await tasks.longest_chain.options(on_progress=seen.append).enqueue(40_000)
    file = pathlib.Path(sys.argv[1])
    waiting = await tasks.wait_for_file.options(retries=20).enqueue(str(file))
    async for status in waiting.watch():
        if status.state == "scheduled":
            file.write_text("here")
    print(await chain.result(30), seen[-1].text, await waiting.result(30), status.attempts)
    await tasks.executors.shutdown_all()
    running_call.set(CallContext("id", checkpointed=(39_999, 7, 10_000)))
    print(unwrap(tasks.longest_chain)(40_000))

asyncio.run(main())
"""


def test_the_sample_worker_serves_the_sample_functions(
    worker: Callable[..., Running], server: EmbeddedServer, tmp_path: Path
) -> None:
    running = worker(
        "--config", "workers/worker.toml", "--url", "embedded", "--processes", "1", "--prefix", "samples"
    )
    running.logged("worker.ready", times=2)
    remote = '{"kind": "nats", "url": "embedded", "prefix": "samples"}'
    more = {
        "GENRO_NATS_HOME": str(server.directory),
        "GENRO_POOL_HEAVY": remote,
        "GENRO_POOL_IO": remote,
    }
    caller = subprocess.run(
        [sys.executable, "-c", CALLER, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        cwd=ROOT / "workers",
        env=environment(**more),
    )
    assert caller.stderr == ""
    assert caller.stdout.splitlines() == [
        "168 True ['ab', 'cd', 'e'] 64",
        "(35655, 324) 30,000 of 40,000, longest so far: 308 from 26,623 4 2",
        "(7, 10000)",
    ]
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0
