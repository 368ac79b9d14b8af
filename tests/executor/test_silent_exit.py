"""Programs that end without closing their pools: nothing is written, and the end is not held up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from genro_nats.testing import WorkerFactory

PROGRAM = """
import asyncio, json, sys, time
from genro_nats import NatsExecutor, ProcessExecutor
how, options = sys.argv[1], json.loads(sys.argv[2])
pool = (NatsExecutor if options else ProcessExecutor)("exit", **options)
double = pool(lambda x: x * 2)
if how == "call":
    print(double.call(2))
elif how == "asyncio":
    print(asyncio.run(double(2)))
elif how == "trio":
    import trio
    print(trio.run(double, 2))
elif how == "interrupted":
    try:
        print(double.call(2))
        pool(time.sleep).call(20)
    except KeyboardInterrupt:
        pass
else:
    loop = asyncio.new_event_loop()
    print(loop.run_until_complete(double(2)))
    if how == "closed loop":
        loop.close()
"""


def check(how: str, **options: object) -> None:
    command = [sys.executable, "-u", "-c", PROGRAM, how, json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "4\n"
        if how == "interrupted":
            process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        try:
            output, errors = process.communicate(timeout=10)
        finally:
            process.kill()
        assert (output, errors, process.returncode) == ("", "", 0)
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("how", ["call", "asyncio", "trio", "interrupted", "open loop", "closed loop"])
def test_a_process_pool(how: str) -> None:
    check(how)


@pytest.mark.parametrize("how", ["call", "trio", "interrupted", "open loop", "closed loop"])
def test_a_nats_pool(how: str, nats_session_worker: WorkerFactory) -> None:
    worker = nats_session_worker("silent.exit", max_workers=1, spares=0)
    check(how, **{**nats_session_worker.shared, "subject": worker.options["subject"]})
