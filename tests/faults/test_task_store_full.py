"""Durable tasks whose streams take no more: the server says so, or is silent; and links too slow for its patience."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats.errors import StreamError, StreamUnavailableError, TaskFailedError
from genro_nats.server import EmbeddedServer
from genro_nats.server.config import ServerConfig
from genro_nats.tasks.status import TaskState
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Notes, Worker, until
from tests.faults.durable import Ledger, TaskFleet, reach

pytestmark = pytest.mark.anyio

STORE = 20 << 20  # bytes
REFUSED = r"err_code 10023\); the server's store is full: make room .*max_file_store"


@pytest.fixture
async def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TaskFleet]:
    """On a server that may keep ``STORE`` bytes."""
    render = ServerConfig.render
    limit = f"jetstream {{ max_file_store: {STORE}, "
    monkeypatch.setattr(ServerConfig, "render", lambda self: render(self).replace("jetstream {", limit))
    directory = tmp_path / "server"
    directory.mkdir(mode=0o700)
    with EmbeddedServer(directory=directory, reuse=False) as server:
        found = TaskFleet(server, "own", tmp_path)
        yield found
        await found.aclose()


async def fill(ledger: Ledger) -> None:
    """Store until the server takes no more."""
    junk = {"name": "junk", "subjects": ["junk.>"], "storage": "file"}
    await ledger.js.api("STREAM.CREATE.junk", junk)
    data = os.urandom(1 << 20)
    for number in range(2 * STORE >> 20):
        message = await ledger.js.requester.request(f"junk.{number}", data)
        if b"10023" in message.data:
            return
    raise AssertionError("there is no end to it")


def log_of(worker: Worker) -> str:
    return worker.log.with_suffix(".err").read_text()


async def chunks_left(ledger: Ledger) -> int:
    info = await ledger.js.api(f"STREAM.INFO.{ledger.subjects.blobs_stream}")
    return int(info["state"]["messages"])


async def test_a_result_for_which_there_is_no_room_fails_its_task_and_no_more(
    tasks: TaskFleet, notes: Notes
) -> None:
    """It ran once, nobody died, and what was stored of the result makes room again."""
    worker = await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handle = await pool.enqueue(task_jobs.give_when, notes.path, "/", 1, 2 * STORE)
        with pytest.raises(TaskFailedError, match=REFUSED) as said:
            await handle.result(timeout=10)
        assert said.value.reason == "its outcome could not be stored"
        assert await ledger.check([handle.id]) == {"failed": 1}
        record = await ledger.outcome(handle.id)
        assert (record.attempts, record.deaths) == (1, 0)
        assert notes.lines() == ["began"]
        (letter,) = await pool.dead.list()
        assert (letter.id, letter.deaths, letter.reason) == (handle.id, 0, record.reason)
        assert await chunks_left(ledger) == 0
        assert await (await pool.enqueue(jobs.give_bytes, 3)).result(timeout=10) == bytes(3)
    assert "Traceback" not in log_of(worker)
    if sys.platform == "linux":
        maps = Path(f"/proc/{worker.process.pid}/maps")
        await until(lambda: "memfd:genro-nats" not in maps.read_text(), 3)


async def test_a_full_server_is_named_to_who_enqueues_at_once(tasks: TaskFleet) -> None:
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        begin = time.monotonic()
        with pytest.raises(StreamError, match=r"41,9\d+,\d+ bytes of a task .*" + REFUSED) as large:
            await pool.enqueue(task_jobs.sum_of, bytes(2 * STORE))
        await reach(lambda: nothing(ledger))  # the caller had the right to purge
        await fill(ledger)
        with pytest.raises(StreamError, match=REFUSED) as small:
            await pool.enqueue(task_jobs.sum_of, b"")
        assert time.monotonic() - begin < 8  # the patience with a stream that is away is longer
        assert large.value.code == small.value.code == 10023


async def nothing(ledger: Ledger) -> bool:
    return await chunks_left(ledger) == 0


@pytest.mark.parametrize("long", [True, False])
async def test_a_small_outcome_waits_for_room(
    tasks: TaskFleet, notes: Notes, tmp_path: Path, long: bool
) -> None:
    """Nothing smaller could be stored in its place, so it is kept, and the task is not run again."""
    worker = await tasks.worker()
    pool = tasks.caller()
    release = tmp_path / "release"
    async with tasks.ledger() as ledger:
        handle = await pool.enqueue(task_jobs.give_when, notes.path, str(release), 1, 10)
        await notes.wait()
        if long:  # it is claimed
            await reach(lambda: ledger.store.load(handle.id))
        await fill(ledger)
        release.touch()
        await until(lambda: worker.count("task.unstored") == 1, 5)
        _, facts = next(event for event in worker.events if event[0] == "task.unstored")
        assert facts["task"] == handle.id
        assert "max_file_store" in facts["error"]
        await ledger.js.api("STREAM.DELETE.junk")
        assert await handle.result(timeout=10) == bytes([1]) * 10
        record = await ledger.outcome(handle.id)
        assert (record.state, record.attempts, record.deaths) == (TaskState.COMPLETED, 1, 0)
        await ledger.empty()
    assert notes.lines() == ["began"]
    assert "Traceback" not in log_of(worker)


@contextlib.contextmanager
def disk(path: Path, size: int) -> Iterator[Path]:
    """A file system of its own; the test is skipped where none may be mounted."""
    path.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


async def test_a_full_disk_of_which_the_server_says_nothing(tmp_path: Path, notes: Notes) -> None:
    """It stays silent to who stores: that is tried for some leases, named, and nobody has died."""
    home = tmp_path / "server"
    home.mkdir(mode=0o700)
    with (
        disk(tmp_path / "disk", 60 << 20) as store,
        EmbeddedServer(directory=home, store_dir=store) as server,
    ):
        tasks = TaskFleet(server, "own", tmp_path)
        try:
            await tasks.worker()
            pool = tasks.caller()
            async with tasks.ledger() as ledger:
                with (store / "others").open("wb") as others:
                    others.write(bytes(45 << 20))
                handle = await pool.enqueue(task_jobs.give_when, notes.path, "/", 1, 25 << 20)
                enqueuing = asyncio.create_task(enqueued(pool, bytes(25 << 20)))
                with pytest.raises(TaskFailedError, match=r"stores nothing .*disk of its server") as said:
                    await handle.result(timeout=40)
                assert said.value.reason == "its outcome could not be stored"
                record = await ledger.outcome(handle.id)
                assert (record.attempts, record.deaths) == (1, 0)
                assert notes.lines() == ["began"]
                with pytest.raises(StreamUnavailableError, match=r"stores nothing .*disk of its server"):
                    await enqueuing
        finally:
            await tasks.aclose()


async def enqueued(pool: Any, data: bytes) -> object:
    return await pool.enqueue(task_jobs.sum_of, data)


class SlowLink:
    """Hands on what a server sends, so many bytes per second; what is sent to it goes through at once."""

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._rate = rate
        self._free = 0.0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer, self._rate))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float = 0.0
    ) -> None:
        while data := await reader.read(8192):
            if rate:
                now = time.monotonic()
                self._free = max(self._free, now) + len(data) / rate
                await asyncio.sleep(self._free - now)
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_a_large_result_comes_over_a_slow_link(shared_tasks: TaskFleet) -> None:
    """Each of its chunks takes longer than an answer may."""
    await shared_tasks.worker()
    size = 1_100_000
    handle = await shared_tasks.caller().enqueue(jobs.give_bytes, size)
    async with SlowLink(shared_tasks.server.port, 100_000) as url:
        far = shared_tasks.caller(url=(url,))
        begin = time.monotonic()
        assert await far.task(handle.id).result(timeout=40) == bytes(size)
        assert time.monotonic() - begin > 9
