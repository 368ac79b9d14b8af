"""A process that has no file descriptor left says so, and goes on when it has some again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="large frames come by descriptor on Linux only"
)

# A program of its own: the limit is the whole process's.
PROGRAM = """
import asyncio, os, resource
from genro_nats import ProcessExecutor, WorkerLostError

def large():
    return bytes(1 << 20)

async def main():
    async with ProcessExecutor("p", max_workers=1, spares=0) as pool:
        await pool.submit(large)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        try:
            await asyncio.wait_for(pool.submit(large), 10)
        except WorkerLostError as error:
            print(error)
        for fd in taken:
            os.close(fd)
        print(len(await asyncio.wait_for(pool.submit(large), 10)))

asyncio.run(main())
"""


def test_a_result_for_which_no_descriptor_is_left(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    error, length = ran.stdout.splitlines()
    assert "was ended while it ran __main__:large" in error
    assert "no file descriptor is left of 64" in error
    assert "ulimit -n" in error
    assert length == str(1 << 20)
