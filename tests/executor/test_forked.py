"""Pools that were used before ``os.fork``, used in the child."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, sys
from genro_nats import AsyncExecutor, ProcessExecutor, ThreadExecutor
kind = {"thread": ThreadExecutor, "async": AsyncExecutor, "process": ProcessExecutor}[sys.argv[1]]
pool = kind("forked", max_workers=1)
double = pool(abs)
asyncio.run(double(-1)) if sys.argv[2] == "asyncio" else double.call(-1)
pid = os.fork()
if pid == 0:
    assert double.call(-2) == 2
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert double.call(-3) == 3
"""


@pytest.mark.parametrize("before", ["asyncio", "plain"])
@pytest.mark.parametrize("kind", ["thread", "async", "process"])
def test_a_pool_works_on_both_sides_of_a_fork(kind: str, before: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, kind, before]
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert (run.stderr, run.returncode) == ("", 0)
