"""Pools that compress: calls, streams, progress and tasks, and workers and callers that can't read it."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.codec.codecs import Codecs
from genro_nats.codec.compression import press
from genro_nats.codec.frame import Flag, Frame, FrameKind, decode, encode
from genro_nats.errors import CallTimeoutError, CodecError, PayloadTooLargeError
from genro_nats.executor.wire import load_reply
from genro_nats.message import ProgressUpdate, new_id
from genro_nats.transport.subjects import pool_subjects
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Fleet, Notes, until
from tests.faults.durable import TaskFleet
from tests.faults.test_large_payloads import transfer_of

pytestmark = pytest.mark.anyio

TEXT = b"It was a dark and stormy night; the rain fell in torrents. " * 20_000  # 1.2 MB


def by_reference(pool: NatsExecutor) -> bool:
    """Was anything so large that it took the connection for large payloads?"""
    return transfer_of(pool).line.opened


@pytest.mark.parametrize("algorithm", ["zstd", "lz4"])
async def test_everything_goes_smaller(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path, algorithm: str
) -> None:
    await shared_tasks.worker()  # it needs no option: the call says what is read
    pool = shared_tasks.caller(compression=algorithm)
    assert await pool.submit(jobs.echo_note, notes.path, TEXT) == TEXT
    array = await pool.submit(jobs.echo_note, notes.path, bytearray(TEXT))
    assert isinstance(array, bytearray)
    array[:2] = b"is"
    items = [item async for item in pool(jobs.mixed_items).stream([1_200_000, 10, 500_000])]
    assert [len(item) for item in items] == [1_200_000, 10, 500_000]
    task = await pool.enqueue(jobs.echo_note, notes.path, TEXT)
    assert await task.result(timeout=10) == TEXT
    assert not by_reference(pool)  # neither what was sent nor the answers
    other = shared_tasks.caller()
    assert await other.task(task.id).result(timeout=10) == TEXT

    seen: list[ProgressUpdate] = []
    release = tmp_path / "release"
    kept = (
        await pool(task_jobs.keep_large)
        .options(on_progress=seen.append)
        .enqueue(notes.path, [400_000], str(release))
    )
    await until(lambda: bool(seen))
    assert seen[0].data == bytes(400_000)
    release.touch()
    assert await kept.result(timeout=10) == 0


async def test_a_task_that_runs_again_gets_its_checkpoint_beside_what_is_compressed(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    await shared_tasks.worker()
    pool = shared_tasks.caller(compression="zstd")
    done = await pool(task_jobs.fail_with_checkpoint).options(retries=1, backoff=0.01).enqueue(TEXT)
    assert await done.result(timeout=10) == (len(TEXT), "kept")


async def test_without_the_option_nothing_is_compressed(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(compression="zstd")
    pool = shared_fleet.caller()
    assert await pool.submit(jobs.give_bytes, len(TEXT)) == bytes(len(TEXT))
    assert by_reference(pool)
    sending = shared_fleet.caller()
    assert await sending.submit(jobs.take_bytes, TEXT) == len(TEXT)
    assert by_reference(sending)


async def test_a_worker_without_the_extra_says_so(shared_fleet: Fleet, notes: Notes, tmp_path: Path) -> None:
    (tmp_path / "lz4").mkdir()
    (tmp_path / "lz4" / "__init__.py").write_text("raise ImportError('not here')")
    await shared_fleet.worker(path=tmp_path)
    pool = shared_fleet.caller(compression="lz4")
    with pytest.raises(
        CodecError, match=r'lz4, which is not installed here: pip install "genro-nats\[lz4\]"'
    ):
        await pool.submit(jobs.take_bytes, TEXT)
    assert await pool.submit(jobs.give_bytes, 100_000) == bytes(100_000)  # not compressed, as it can't be
    assert await pool.submit(jobs.take_bytes, os.urandom(100_000)) == 100_000


@pytest.mark.parametrize("stated", [1 << 40, 5_000_001])
async def test_a_bomb_is_named_and_the_worker_serves_on(shared_fleet: Fleet, stated: int) -> None:
    await shared_fleet.worker(max_payload_size=5_000_000)
    pool = shared_fleet.caller()
    await pool.start()
    subjects = pool_subjects(shared_fleet.prefix, "faults")
    id = new_id()
    frame = Frame(FrameKind.CALL, id, b"tests.faults.jobs:take_bytes", flags=Flag.COMPRESSED)
    frame.body = struct.pack("!BBHQ", 1, 0, 0, stated) + b"anything"
    connection: Any = pool._home.engine._connection  # type: ignore[union-attr]
    answers: list[bytes] = []
    inbox = f"{shared_fleet.prefix}.reply.=.bomb.{id.hex()}"
    await connection.subscribe(inbox, lambda message: answers.append(message.data))
    await connection.publish(subjects.call, encode(frame), inbox)
    await until(lambda: bool(answers))
    answer, _ = decode(answers[0])
    with pytest.raises(PayloadTooLargeError, match=r"5,000,000 is the most \(max_payload_size\)"):
        load_reply(answer, Codecs())
    assert await pool.submit(jobs.take_bytes, b"x") == 1


async def test_an_answer_that_grows_over_the_caller_s_limit(shared_fleet: Fleet) -> None:
    await shared_fleet.worker()
    pool = shared_fleet.caller(compression="zstd", max_payload_size=1_000_000)
    with pytest.raises(PayloadTooLargeError, match="max_payload_size"):
        await pool.submit(jobs.give_bytes, 1_100_000)
    assert await pool.submit(jobs.give_bytes, 900_000) == bytes(900_000)


HEXADECIMAL = os.urandom(48 << 20).hex().encode()  # it gets half as large, and not quickly


async def _longest_pause(work: Awaitable[Any]) -> float:
    """Seconds that the event loop was away while ``work`` was done."""
    working = asyncio.ensure_future(work)
    last, longest = time.perf_counter(), 0.0
    while not working.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        last, longest = now, max(longest, now - last)
    await working
    return longest


async def test_the_loop_goes_on_while_much_is_compressed_and_expanded(
    shared_tasks: TaskFleet, notes: Notes
) -> None:
    await shared_tasks.worker()
    pool = shared_tasks.caller(compression="zstd")
    assert await pool.submit(jobs.echo_note, notes.path, TEXT) == TEXT
    begin = time.perf_counter()
    assert press(Frame(FrameKind.CALL, body=HEXADECIMAL), "zstd").flags & Flag.COMPRESSED
    alone = time.perf_counter() - begin

    async def call() -> None:
        assert await pool.submit(jobs.echo_note, notes.path, HEXADECIMAL) == HEXADECIMAL

    async def task() -> None:
        handle = await pool.enqueue(jobs.echo_note, notes.path, HEXADECIMAL)
        assert await handle.result(timeout=30) == HEXADECIMAL

    for work in (call, task):
        pauses = [await _longest_pause(work()) for _ in range(3)]
        assert min(pauses) < alone / 2, work


async def test_a_deadline_while_a_call_is_compressed(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker()
    pool = shared_fleet.caller(compression="zstd")
    with pytest.raises(CallTimeoutError, match=r"within 0\.01 s"):
        await pool(jobs.echo_note).options(timeout=0.01)(notes.path, HEXADECIMAL)
    assert await pool.submit(jobs.echo_note, notes.path, b"x") == b"x"
    assert len(notes.lines()) == 1
