"""Durable tasks whose arguments, outcomes and notes are too large for a message, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.codec.blob import Blob, BlobId, blob_in, is_referred, refer
from genro_nats.codec.frame import Flag, Frame, FrameKind, encode, size
from genro_nats.codec.values import dumps
from genro_nats.errors import (
    DecodeError,
    PayloadLostError,
    PayloadTooLargeError,
    StreamError,
    TaskFailedError,
)
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call, ProgressUpdate
from genro_nats.server import EmbeddedServer
from genro_nats.tasks.status import TaskState
from genro_nats.transport.blobs import chunks_of, read_head
from genro_nats.transport.direct import StoredMessage, get_last, scan
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.subjects import TaskSubjects
from tests.faults import jobs, task_jobs
from tests.faults.conftest import ROOT, Notes, Worker, until
from tests.faults.durable import Ledger, TaskFleet, reach

pytestmark = pytest.mark.anyio

LARGE = 3_000_000  # bytes: six chunks
MAX_PAYLOAD = 1 << 20
ROOM = 16 << 10


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """With the default max_payload of 1 MiB."""
    directory = tmp_path_factory.mktemp("narrow") / "server"
    directory.mkdir(mode=0o700)
    with EmbeddedServer(directory=directory, max_payload=MAX_PAYLOAD, reuse=False) as server:
        yield server


@pytest.fixture
async def tasks(narrow_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[TaskFleet]:
    found = TaskFleet(narrow_server, f"p{os.urandom(4).hex()}", tmp_path)
    yield found
    await found.aclose()


async def stored(ledger: Ledger) -> int:
    """Messages in the stream of payloads."""
    info = await ledger.js.api(f"STREAM.INFO.{ledger.subjects.blobs_stream}")
    return int(info["state"]["messages"])


async def heads(ledger: Ledger) -> list[StoredMessage]:
    """A message for each payload that is stored."""
    where = ledger.subjects.of("blob", "*", "*", "head")
    found = await scan(ledger.js, ledger.subjects.blobs_stream, where, limit=100)
    return [message for message in found if message.data]


async def nothing_left(ledger: Ledger, limit: float = 10.0) -> None:
    async def empty() -> bool:
        return await stored(ledger) == 0

    await reach(empty, limit)


async def message_of(ledger: Ledger, id: str) -> StoredMessage:
    where = ledger.subjects.of("task", "*", "*", "*", id)
    found = await get_last(ledger.js, ledger.subjects.tasks_stream, where)
    assert found is not None
    return found


def random(count: int = LARGE) -> bytes:
    return os.urandom(1 << 10) * (count >> 10)


# -- what travels ---------------------------------------------------------------


async def test_arguments_and_results_of_any_size_go_and_nothing_stays(tasks: TaskFleet, notes: Notes) -> None:
    await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        datas = [random(1 << 10), random(), random(LARGE * 4)]
        handles = [await pool.enqueue(jobs.echo_note, notes.path, data) for data in datas]
        assert [await handle.result(timeout=20) for handle in handles] == datas
        assert await pool.task(handles[2].id).result(timeout=10) == datas[2]  # a second time
        await ledger.check(handle.id for handle in handles)
        # The two large results stay as long as their records; the arguments have gone.
        found = await reach_heads(ledger, 2)
        assert {json.loads(head.data)[0] for head in found} == {
            ledger.subjects.state(handle.id) for handle in handles[1:]
        }
        assert all("Nats-TTL" in head.headers for head in found)


async def reach_heads(ledger: Ledger, count: int) -> list[StoredMessage]:
    async def so_many() -> list[StoredMessage]:
        found = await heads(ledger)
        return found if len(found) == count else []

    found: list[StoredMessage] = await reach(so_many)
    return found


async def test_a_result_that_is_not_kept_goes_with_its_payload(tasks: TaskFleet, notes: Notes) -> None:
    await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        data = random()
        handle = await pool(jobs.echo_note).options(keep_result=False).enqueue(notes.path, data)
        assert await handle.result(timeout=10) == data
        await nothing_left(ledger)


async def test_many_large_ones(tasks: TaskFleet) -> None:
    await tasks.worker()
    pool = tasks.caller()
    datas = [random(LARGE + (n << 10)) for n in range(5)]
    handles = await pool(task_jobs.sum_of).enqueue_many(datas)
    found = [await handle.result(timeout=20) for handle in handles]
    assert found == [task_jobs.sum_of(data) for data in datas]
    async with tasks.ledger() as ledger:
        await nothing_left(ledger)


async def test_retries_get_arguments_and_checkpoints_again(
    tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    """A large checkpoint, and large progress, in place of each other; what is superseded goes."""
    await tasks.worker(orphan_ttl=1.0)
    pool = tasks.caller()
    release = tmp_path / "release"
    seen: list[ProgressUpdate] = []
    async with tasks.ledger() as ledger:
        function = pool(task_jobs.keep_large).options(on_progress=seen.append)
        handle = await function.enqueue(notes.path, [LARGE, 10, LARGE + 1], str(release))
        await notes.wait(2)
        await reach_heads(ledger, 2)
        await until(lambda: bool(seen) and seen[-1].text == "2")
        assert seen[-1].data == bytes([2]) * (LARGE + 1)
        status = await handle.status()
        assert status.progress is not None
        assert status.progress.data == bytes([2]) * (LARGE + 1)
        watch = handle.watch()
        await anext(watch)
        os.kill(await child_of(tasks), signal.SIGKILL)
        await notes.wait(4)
        assert notes.lines() == ["none", "kept", str(LARGE + 1), "kept"]
        release.touch()
        assert await handle.result(timeout=10) == LARGE + 1
        # Of the notes the last progress stays, as it does beside a record.
        (head,) = await reach_heads(ledger, 1)
        assert json.loads(head.data) == [ledger.subjects.about("note", "progress", handle.id)]


async def test_notes_that_are_superseded_go_at_once(tasks: TaskFleet, notes: Notes, tmp_path: Path) -> None:
    await tasks.worker()
    pool = tasks.caller()
    release = tmp_path / "release"
    async with tasks.ledger() as ledger:
        sizes = [LARGE, LARGE + 1, LARGE + 2]
        handle = await pool.enqueue(task_jobs.keep_large, notes.path, sizes, str(release))
        await notes.wait(2)
        await reach_heads(ledger, 2)
        release.touch()
        assert await handle.result(timeout=10) == 0
        (head,) = await reach_heads(ledger, 1)
        assert json.loads(head.data) == [ledger.subjects.about("note", "progress", handle.id)]


async def child_of(tasks: TaskFleet) -> int:
    """The child that runs something: the one that has a large file mapped or used most memory."""
    from genro_nats.bench.processes import family

    worker = tasks.workers[0].process.pid
    pids = [pid for pid in family(worker) if pid != worker]

    def resident(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])

    return max(pids, key=resident)


async def test_large_arguments_and_a_checkpoint_of_an_attempt_that_died(
    tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    worker = await tasks.worker()
    pool = tasks.caller()
    data = random()
    release = tmp_path / "release"
    async with tasks.ledger() as ledger:
        handle = await pool(task_jobs.echo_when).enqueue(notes.path, str(release), data)
        await notes.wait()
        worker.signal(signal.SIGKILL)
        await tasks.worker()
        await notes.wait(2, 20)
        release.touch()
        assert await handle.result(timeout=20) == data
        assert (await handle.status()).attempts == 2
        await ledger.check([handle.id])
        assert len(await reach_heads(ledger, 1)) == 1


async def test_a_schedule_keeps_its_arguments(tasks: TaskFleet, notes: Notes) -> None:
    await tasks.worker(orphan_ttl=1.0)
    pool = tasks.caller()
    data = random()
    async with tasks.ledger() as ledger:
        await pool(jobs.note_bytes).schedule("often", every=1, args=(notes.path, data))
        await notes.wait(3, 20)
        assert len(await heads(ledger)) == 1
        assert await pool.unschedule("often")
        await nothing_left(ledger, 20)
        assert set(notes.lines()) == {str(len(data))}


async def test_a_buried_run_of_a_schedule_keeps_its_arguments(tasks: TaskFleet, notes: Notes) -> None:
    await tasks.worker(orphan_ttl=0.4)
    pool = tasks.caller()
    data = random()
    async with tasks.ledger() as ledger:
        await pool(task_jobs.refuse).schedule("often", every=1, args=(notes.path, data))
        await notes.wait(1, 20)
        assert await pool.unschedule("often")
        await ledger.empty()
        await asyncio.sleep(1.5)  # several looks
        letters = await pool.dead.list()
        again: Any = await pool.dead.replay(letters[0].id)
        with pytest.raises(ValueError, match="as it was told"):
            await again.result(timeout=10)
        for letter in await pool.dead.list():
            await pool.dead.drop(letter.id)
        await nothing_left(ledger)
        assert set(notes.lines()) == {str(len(data))}


# -- sizes -----------------------------------------------------------------------


def framed(name: str, total: int) -> bytes:
    """Bytes with which the task's call takes a frame of ``total`` bytes."""

    def length(count: int) -> int:
        call = Call(task_jobs.sum_of, (bytes(count),), {})
        frame = CallEncoder().frame(call, 1.0)
        frame.name = name.encode()
        from genro_nats.codec.frame import chunks

        return sum(map(size, chunks(frame)))

    return bytes(total - (length(total) - total))


async def test_at_the_limit(tasks: TaskFleet) -> None:
    """The option's, and where that is larger the server's."""
    await tasks.worker()
    async with tasks.ledger() as ledger:
        for limit in (300_000, 8 << 20):
            for off in (-1, 0, 1):
                pool = tasks.caller(inline_limit=limit)
                function = pool(task_jobs.sum_of)
                data = framed(function.name, min(limit, MAX_PAYLOAD - ROOM) + off)
                handle = await function.enqueue(data)
                assert await handle.result(timeout=10) == task_jobs.sum_of(data)
                opened = pool._home.engine._transfer.line.opened  # type: ignore[union-attr]
                assert opened == (off > 0), (limit, off)
        await nothing_left(ledger)


@pytest.mark.parametrize("off", [-10, 10])  # the time in the meta takes a byte more or less
async def test_long_headers_and_a_letter_find_room(tasks: TaskFleet, notes: Notes, off: int) -> None:
    """With the longest key and a delay a message of the largest inline size is taken, and buried whole."""
    await tasks.worker()
    pool = tasks.caller(inline_limit=8 << 20)
    key = "ä\n" * 42 + "xy"
    async with tasks.ledger() as ledger:
        function: Any = pool(task_jobs.refuse).options(key=key, delay=0.3)
        small = await function.enqueue(notes.path, bytes(100_000))
        overhead = len((await message_of(ledger, small.id)).data) - 100_000
        await small.cancel()
        count = MAX_PAYLOAD - ROOM - overhead + off
        handle = await function.enqueue(notes.path, bytes(count))
        found = await message_of(ledger, handle.id)
        assert is_referred(found.data) == (off > 0)
        assert off > 0 or len(found.data) > MAX_PAYLOAD - ROOM - 20
        with pytest.raises(ValueError, match="as it was told"):
            await handle.result(timeout=10)
        again = await pool.dead.replay(handle.id)
        with pytest.raises(ValueError, match="as it was told"):
            await again.result(timeout=10)
        assert notes.lines() == [str(count)] * 2


async def test_results_at_the_limit(tasks: TaskFleet) -> None:
    await tasks.worker(inline_limit=8 << 20)
    pool = tasks.caller()
    body, buffers = dumps(bytes(100_000))
    overhead = 48 + len(body) + 8 * len(buffers)
    async with tasks.ledger() as ledger:
        for off in (-1, 0, 1):
            count = MAX_PAYLOAD - ROOM - overhead + off
            handle = await pool(jobs.give_bytes).enqueue(count)
            assert await handle.result(timeout=10) == bytes(count)
            assert len(await heads(ledger)) == (off > 0), off


async def test_max_payload_size_is_named(tasks: TaskFleet) -> None:
    await tasks.worker(max_payload_size=2_000_000)
    pool = tasks.caller(max_payload_size=4_000_000)
    async with tasks.ledger() as ledger:
        with pytest.raises(
            PayloadTooLargeError, match=r"sum_of of 5,\d+,\d+ bytes; 4,000,000 .*max_payload_size"
        ):
            await pool.enqueue(task_jobs.sum_of, random(5_000_000 + 1024))
        with pytest.raises(PayloadTooLargeError, match="max_payload_size"):
            await pool(task_jobs.sum_of).schedule("s", every=60, args=(random(5_000_000),))
        assert await stored(ledger) == 0
        taken = await pool.enqueue(task_jobs.sum_of, random(LARGE))
        with pytest.raises(PayloadTooLargeError, match=r"2,000,000 .*max_payload_size"):
            await taken.result(timeout=10)
        given = await pool.enqueue(jobs.give_bytes, LARGE)
        with pytest.raises(PayloadTooLargeError, match=r"2,000,000 .*max_payload_size"):
            await given.result(timeout=10)


# -- what is dropped, and when ------------------------------------------------------


async def test_a_dead_letter_keeps_its_arguments_for_replays(tasks: TaskFleet, notes: Notes) -> None:
    await tasks.worker(orphan_ttl=0.5)
    pool = tasks.caller()
    data = random()
    async with tasks.ledger() as ledger:
        handle: Any = await pool.enqueue(task_jobs.refuse, notes.path, data)
        for _ in range(2):
            with pytest.raises(ValueError, match="as it was told"):
                await handle.result(timeout=10)
            await asyncio.sleep(1.0)  # longer than an orphan is kept, twice the time between two looks
            handle = await pool.dead.replay(handle.id)
        with pytest.raises(ValueError, match="as it was told"):
            await handle.result(timeout=10)
        assert notes.lines() == [str(len(data))] * 3
        assert len(await heads(ledger)) == 1
        (letter,) = await pool.dead.list()
        assert await pool.dead.drop(letter.id)
        await nothing_left(ledger)


async def test_what_waits_for_long_keeps_its_arguments(tasks: TaskFleet) -> None:
    await tasks.worker(orphan_ttl=0.4)
    data = random()
    handle = await tasks.caller()(task_jobs.sum_of).options(delay=2.5).enqueue(data)
    assert await handle.result(timeout=20) == task_jobs.sum_of(data)


async def test_a_cancelled_task_leaves_nothing(tasks: TaskFleet) -> None:
    await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handle = await pool(task_jobs.sum_of).options(delay=60).enqueue(random())
        assert len(await heads(ledger)) == 1
        assert await handle.cancel()
        await nothing_left(ledger)


async def test_a_task_whose_key_is_taken_leaves_nothing(tasks: TaskFleet) -> None:
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        keyed = pool(task_jobs.sum_of).options(key="k", delay=60)
        first = await keyed.enqueue(b"")
        assert (await keyed.enqueue(random())).id == first.id
        await nothing_left(ledger)


UPLOAD = """
import asyncio, json, sys
from genro_nats import NatsExecutor
from genro_nats.transport import blobs
from tests.faults import task_jobs

cut = blobs.chunks_of
def half(pieces, size):
    for number, chunk in enumerate(cut(pieces, size)):
        if number == 12:
            print("half", flush=True)
            sys.stdin.read()
        yield chunk
blobs.chunks_of = half

async def main():
    pool = NatsExecutor("faults", **json.loads(sys.argv[1]))
    print("ready", flush=True)
    await pool.enqueue(task_jobs.sum_of, bytes(range(256)) * 40_000)

asyncio.run(main())
"""


async def test_a_caller_killed_in_the_middle_of_an_upload_leaves_nothing(tasks: TaskFleet) -> None:
    options = {**tasks.options(), "url": [tasks.server.url], "user": tasks.server.user}
    options["password"] = tasks.server.password
    async with tasks.ledger() as ledger:
        process = subprocess.Popen(
            [sys.executable, "-c", UPLOAD, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        assert process.stdout is not None
        try:
            loop = asyncio.get_running_loop()
            for line in (b"ready\n", b"half\n"):
                assert await loop.run_in_executor(None, process.stdout.readline) == line
            await reach(lambda: more_than(ledger, 3))
        finally:
            process.kill()
            process.communicate()
        assert await stored(ledger) > 3
        await tasks.worker(orphan_ttl=1.0)
        await nothing_left(ledger)
        assert await ledger.queued() == 0


async def more_than(ledger: Ledger, count: int) -> bool:
    return await stored(ledger) > count


async def test_an_enqueue_that_is_cancelled_leaves_nothing(
    tasks: TaskFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = tasks.caller()

    def cancelled(pieces: Any, size: int) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks_of(pieces, size)):
            if number == 12:
                enqueuing.cancel()
            yield chunk

    monkeypatch.setattr("genro_nats.transport.blobs.chunks_of", cancelled)
    async with tasks.ledger() as ledger:
        enqueuing = asyncio.create_task(_enqueue(pool, random(10_000_000)))
        with pytest.raises(asyncio.CancelledError):
            await enqueuing
        await nothing_left(ledger)


async def test_an_enqueue_of_many_that_is_cancelled_leaves_nothing(
    tasks: TaskFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments of the first ones were stored; no task was."""
    pool = tasks.caller()
    begun = 0

    def cancelled(pieces: Any, size: int) -> Iterator[bytes]:
        nonlocal begun
        begun += 1
        if begun == 4:
            enqueuing.cancel()
        yield from chunks_of(pieces, size)

    monkeypatch.setattr("genro_nats.transport.blobs.chunks_of", cancelled)
    async with tasks.ledger() as ledger:
        calls = pool(task_jobs.sum_of).enqueue_many([random(3_000_000) for _ in range(6)])
        enqueuing = asyncio.ensure_future(calls)
        with pytest.raises(asyncio.CancelledError):
            await enqueuing
        assert begun == 4
        await nothing_left(ledger)
        assert await ledger.queued() == 0


async def _enqueue(pool: NatsExecutor, data: bytes) -> Any:
    return await pool.enqueue(task_jobs.sum_of, data)


async def test_a_fenced_outcome_goes(tasks: TaskFleet, notes: Notes, tmp_path: Path) -> None:
    """Of two workers that ran it the one that had lost its lease leaves nothing."""
    first = await tasks.worker()
    pool = tasks.caller()
    release = tmp_path / "release"
    async with tasks.ledger() as ledger:
        handle = await pool.enqueue(task_jobs.give_when, notes.path, str(release), 7, LARGE)
        await notes.wait()
        await until_claimed(ledger, handle.id)
        first.signal(signal.SIGSTOP)
        second = await tasks.worker()
        await notes.wait(2, 20)
        release.touch()
        assert await handle.result(timeout=20) == bytes([7]) * LARGE
        assert len(await heads(ledger)) == 1
        first.signal(signal.SIGCONT)
        await until(lambda: first.count("task.fenced") == 1, 20)
        await reach_heads(ledger, 1)
        assert await pool.task(handle.id).result(timeout=10) == bytes([7]) * LARGE
        assert second.count("task.fenced") == 0


async def until_claimed(ledger: Ledger, id: str) -> None:
    async def claimed() -> bool:
        return await ledger.store.load(id) is not None

    await reach(claimed)


# -- what goes wrong -------------------------------------------------------------------


def _wrong_hash(blob: Blob) -> Blob:
    return blob._replace(digest=bytes(32))


def _another(blob: Blob) -> Blob:
    return blob._replace(id=blob.id._replace(number=os.urandom(16)))


def _somebody_elses(blob: Blob) -> Blob:
    return blob._replace(id=blob.id._replace(user="0" * 8))


def _everybodys(blob: Blob) -> Blob:
    return blob._replace(id=blob.id._replace(user="*"))


def _nowhere(blob: Blob) -> Blob:
    return blob._replace(id=blob.id._replace(user="=.x.=.y"))


def _longer(blob: Blob) -> Blob:
    return blob._replace(n_body=blob.n_body + 5_000_000)


def _shorter(blob: Blob) -> Blob:
    return blob._replace(table=(1_000_000,))


def _endless(blob: Blob) -> Blob:
    return blob._replace(n_body=1 << 62)


def _overflowing(blob: Blob) -> Blob:
    return blob._replace(n_body=(1 << 64) - 1, table=((1 << 63) - 1,) * 4)


def _finer(blob: Blob) -> Blob:
    return blob._replace(chunk=1 << 16)


def _dust(blob: Blob) -> Blob:
    return blob._replace(chunk=1)


DAMAGES: list[tuple[Any, type[Exception], str]] = [
    (_wrong_hash, DecodeError, "hash"),
    (_another, PayloadLostError, "not there"),
    (_somebody_elses, PayloadLostError, "not there"),
    (_everybodys, DecodeError, "of a user that can't be"),
    (_nowhere, DecodeError, "of a user that can't be"),
    (_longer, DecodeError, "A chunk of"),
    (_shorter, DecodeError, "A chunk of|hash"),
    (_endless, PayloadTooLargeError, "max_payload_size"),
    (_overflowing, PayloadTooLargeError, "max_payload_size"),
    (_finer, DecodeError, "A chunk of"),
    (_dust, DecodeError, "can't be"),
]


async def test_a_reference_that_lies(tasks: TaskFleet, notes: Notes) -> None:
    """In a task's message: the task fails, by name, and the worker serves on."""
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handles = [await pool.enqueue(jobs.note_bytes, notes.path, random()) for _ in DAMAGES]
        messages = [await message_of(ledger, handle.id) for handle in handles]
        await ledger.js.api(f"STREAM.PURGE.{ledger.subjects.tasks_stream}")
        stream = Publisher(ledger.js, ledger.subjects.tasks_stream)
        for message, (damage, _, _) in zip(messages, DAMAGES, strict=True):
            frame, blob = blob_in(message.data)
            await stream.publish(message.subject, refer(frame, damage(blob)), msg_id=None)
        worker = await tasks.worker()
        for handle, (_, error, text) in zip(handles, DAMAGES, strict=True):
            with pytest.raises(error, match=text):
                await handle.result(timeout=20)
            assert (await handle.status()).state is TaskState.FAILED
        assert notes.lines() == []
        await serves_on(tasks, worker)


async def test_a_record_whose_reference_lies(tasks: TaskFleet) -> None:
    """Who reads it is told, and can read others."""
    await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handle = await pool.enqueue(jobs.give_bytes, LARGE)
        assert await handle.result(timeout=10) == bytes(LARGE)
        record = await ledger.store.load(handle.id)
        assert record is not None
        frame, blob = blob_in(record.outcome)
        seq, reader = record.seq, tasks.caller()
        for damage, error, text in DAMAGES:
            lie = refer(frame, damage(blob))
            seq = await ledger.store.save(handle.id, record.record, lie, expected=seq)
            with pytest.raises(error, match=text):
                await reader.task(handle.id).result(timeout=20)
        await ledger.store.save(handle.id, record.record, refer(frame, blob), expected=seq)
        assert await reader.task(handle.id).result(timeout=20) == bytes(LARGE)


@pytest.mark.parametrize("buffers", range(4))
def test_a_reference_of_an_older_layout(buffers: int) -> None:
    """It named no user, and had 62 bytes before its table."""
    head = Frame(FrameKind.CALL, bytes(16), b"m:f", flags=Flag.REFERRED)
    head.body = struct.pack("!16sI32sQH", bytes(16), 512, bytes(32), 9, buffers) + bytes(8 * buffers)
    with pytest.raises(DecodeError, match="refers to a stored payload"):
        blob_in(encode(head))


@pytest.mark.parametrize("id", ["=.0", "*." + "0" * 32, "00." + "0" * 32, "=." + "A" * 32, "=.*", "0" * 32])
def test_a_head_that_stands_where_none_can_be(id: str) -> None:
    """It is none: what is dropped by the words of a subject must be one payload."""
    subject = TaskSubjects("P", "T").of("blob", *id.split("."), "head")
    assert read_head(StoredMessage(subject, 1, "2026-01-01T00:00:00Z", {}, b"[]")) is None


async def serves_on(tasks: TaskFleet, worker: Worker) -> None:
    data = random()
    handle = await tasks.caller().enqueue(task_jobs.sum_of, data)
    assert await handle.result(timeout=20) == task_jobs.sum_of(data)
    assert "Traceback" not in worker.log.with_suffix(".err").read_text()


CHUNKS = {"missing": None, "empty": b"", "cut": b"short", "foreign": bytes(512 * 1024)}


async def test_a_chunk_that_is_not_what_it_was(tasks: TaskFleet, notes: Notes) -> None:
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handles = {}
        for name, content in CHUNKS.items():
            handle = handles[name] = await pool.enqueue(jobs.note_bytes, notes.path, random())
            _, blob = blob_in((await message_of(ledger, handle.id)).data)
            where, stream = ledger.subjects.blob(blob.id, 3), ledger.subjects.blobs_stream
            if content is None:
                await ledger.js.api(f"STREAM.PURGE.{stream}", {"filter": where})
            else:
                await Publisher(ledger.js, stream).publish(where, content, msg_id=None)
        worker = await tasks.worker()
        for name, handle in handles.items():
            with pytest.raises(DecodeError if CHUNKS[name] else PayloadLostError):
                await handle.result(timeout=20)
        assert notes.lines() == []
        await serves_on(tasks, worker)


async def test_a_full_stream_is_named_and_nothing_stays(tasks: TaskFleet) -> None:
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        stream = ledger.subjects.blobs_stream
        config = (await ledger.js.api(f"STREAM.INFO.{stream}"))["config"]
        await ledger.js.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 2_000_000})
        with pytest.raises(
            StreamError, match=r"2,9\d+,\d+ bytes of a task could not be stored .*[Mm]ake room"
        ) as full:
            await pool.enqueue(task_jobs.sum_of, random())
        assert full.value.code == 10077
        await nothing_left(ledger)
        assert await ledger.queued() == 0
        worker = await tasks.worker()
        handle = await pool.enqueue(jobs.give_bytes, LARGE)
        with pytest.raises(
            TaskFailedError, match=r"3,0\d+,\d+ bytes .* could not be stored .*make room"
        ) as said:
            await handle.result(timeout=10)
        assert said.value.reason == "its outcome could not be stored"
        await nothing_left(ledger)
        assert await (await pool.enqueue(jobs.give_bytes, 10)).result(timeout=10) == bytes(10)
        assert "Traceback" not in worker.log.with_suffix(".err").read_text()


async def test_a_server_that_restarts_meanwhile(server: EmbeddedServer, tmp_path: Path) -> None:
    """Uploads and reading go on where they were."""
    tasks = TaskFleet(server, "own", tmp_path)
    try:
        pool = tasks.caller()
        data = random(30_000_000)
        async with tasks.ledger() as ledger:
            enqueuing = asyncio.create_task(_enqueue(pool, data))
            await reach(lambda: more_than(ledger, 5))
            server.kill()
            await asyncio.to_thread(server.restart)
            handle = await enqueuing
            worker = await tasks.worker()
            await until(lambda: memfd_of(worker) > 0)
            server.kill()
            await asyncio.to_thread(server.restart)
            assert await handle.result(timeout=40) == task_jobs.sum_of(data)
    finally:
        await tasks.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="memfd")
async def test_a_worker_lets_go_of_large_results_at_once(tasks: TaskFleet) -> None:
    """Not when Python next looks for cycles, which an idle worker may never do."""
    worker = await tasks.worker()
    pool = tasks.caller()
    async with tasks.ledger() as ledger:
        handles = [await pool.enqueue(jobs.give_bytes, LARGE) for _ in range(5)]
        assert [len(await handle.result(timeout=10)) for handle in handles] == [LARGE] * 5
        await ledger.check(handle.id for handle in handles)
    await until(lambda: mapped_by(worker) == 0, 3)


def mapped_by(worker: Worker) -> int:
    return Path(f"/proc/{worker.process.pid}/maps").read_text().count("memfd:genro-nats")


def memfd_of(worker: Worker) -> int:
    directory = Path(f"/proc/{worker.process.pid}/fd")
    return sum("memfd:genro-nats" in str(fd.readlink()) for fd in directory.iterdir() if fd.is_symlink())


async def test_a_frame_is_put_together_as_it_was() -> None:
    """What the reference says of body and buffers is all that is needed."""
    frame = Frame(2, bytes(16), b"name", b"{}", b"body", [b"bytes", bytearray(b"array")])
    from genro_nats.codec.blob import content_in, content_of, start

    for content in (content_of(frame), content_in(encode(frame))):
        blob = Blob(BlobId("=", bytes(16)), 512, bytes(32), content.n_body, content.table)
        head, found = blob_in(refer(content.head, blob))
        assert found == blob
        assert start(head, found) + b"".join(content.pieces) == encode(frame)
