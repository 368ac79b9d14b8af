"""Pools that nobody closes, workers that are told to leave, and what is logged of failing calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genro_nats import NatsExecutor
from genro_nats.testing import NatsServer, WorkerFactory

SCRIPT = """
import asyncio, os
from genro_nats import NatsExecutor
pool = NatsExecutor("p", **{options!r})
async def main():
    print(await pool.submit(os.path.basename, "a/b"))
asyncio.run(main())
"""


def test_a_script_that_closes_nothing_ends(
    tmp_path: Path, nats_worker: WorkerFactory, nats_options: dict[str, object]
) -> None:
    nats_worker("tasks.open", max_workers=1)
    script = tmp_path / "app.py"
    script.write_text(SCRIPT.format(options={**nats_options, "subject": "tasks.open"}))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "b\n"), done.stderr
    assert time.monotonic() - began < 10


def test_a_draining_worker_hears_a_cancel(
    nats_worker: WorkerFactory, nats_options: dict[str, object]
) -> None:
    worker = nats_worker("tasks.leave", max_workers=1)

    async def leave() -> float:
        async with NatsExecutor("p", **{**nats_options, "subject": "tasks.leave"}) as pool:
            await pool.submit(abs, 1)
            call = asyncio.create_task(pool.submit(time.sleep, 30))
            while pool.metrics["inflight"] < 1:
                await asyncio.sleep(0.01)
            worker.terminate()
            while "worker.draining" not in worker.stderr():
                await asyncio.sleep(0.01)
            began = time.monotonic()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert await asyncio.to_thread(worker.wait, 10) == 0
            return time.monotonic() - began

    assert asyncio.run(leave()) < 5


def test_a_failing_call_is_logged_once(nats_worker: WorkerFactory, nats_options: dict[str, object]) -> None:
    worker = nats_worker("tasks.log", max_workers=1)

    async def fail() -> None:
        async with NatsExecutor("p", **{**nats_options, "subject": "tasks.log"}) as pool:
            with pytest.raises(ValueError, match="invalid literal"):
                await pool.submit(int, "x")
            assert await pool.submit(int, "1") == 1

    asyncio.run(fail())
    assert worker.stop() == 0
    lines = [line for line in worker.stderr().splitlines() if "call.failed" in line]
    assert len(lines) == 1
    assert "function=builtins:int" in lines[0]
    assert "error=builtins:ValueError" in lines[0]


def test_a_second_signal_leaves_no_traceback(
    nats_worker: WorkerFactory, nats_options: dict[str, object]
) -> None:
    worker = nats_worker("tasks.twice", max_workers=1)

    async def busy() -> None:
        async with NatsExecutor("p", **{**nats_options, "subject": "tasks.twice"}) as pool:
            await pool.submit(abs, 1)
            call = asyncio.create_task(pool.submit(time.sleep, 30))
            while pool.metrics["inflight"] < 1:
                await asyncio.sleep(0.01)
            worker.terminate()
            while "worker.draining" not in worker.stderr():
                await asyncio.sleep(0.01)
            worker.terminate()
            assert await asyncio.to_thread(worker.wait, 10) != 0
            await asyncio.gather(call, return_exceptions=True)

    asyncio.run(busy())
    assert "Traceback" not in worker.stderr()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"INFO [1]\r\n")
    await writer.drain()
    await reader.read(100)
    writer.close()


def test_garbage_on_the_port_does_not_end_the_reconnecting(nats_server: NatsServer) -> None:
    from genro_nats.config import PoolOptions
    from genro_nats.transport.address import Address, Target
    from genro_nats.transport.nats import Connection

    class Moving(Address):
        """The server, then a port where something else answers, then the server again."""

        turns = 0
        other = ""

        async def resolve(self) -> Target:
            real = await super().resolve()
            self.turns += 1
            return Target([self.other], real.credentials) if self.turns in (2, 3) else real

    async def move() -> None:
        garbage = await asyncio.start_server(_garbage, "127.0.0.1", 0)
        options = PoolOptions.build("nats", {**nats_server.options, "subject": "x"})
        address = Moving(options)
        address.other = f"nats://127.0.0.1:{garbage.sockets[0].getsockname()[1]}"
        connection = Connection(address, "test")
        await connection.start()
        assert connection._client is not None
        await connection._client.close()
        async with asyncio.timeout(10):
            await connection.up.wait()
        assert address.turns == 4
        await connection.aclose()
        garbage.close()
        await garbage.wait_closed()

    asyncio.run(move())
