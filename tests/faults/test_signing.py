"""Shared keys, with a stranger on the server who may hear and publish everything but has no key."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from genro_nats import NatsExecutor, SignatureError
from genro_nats.codec.frame import Flag, Frame, FrameKind, encode
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Keyring, new_key
from genro_nats.errors import ConfigurationError, DecodeError, ExecutorError, TaskFailedError
from genro_nats.message import new_id
from genro_nats.tasks.record import Record, pack
from genro_nats.tasks.status import TaskState
from genro_nats.transport.guard import Guard
from genro_nats.transport.subjects import presence_ask
from genro_nats.transport.transfer.sealed import Unsealing
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Fleet, Notes, Worker, until
from tests.faults.durable import TaskFleet, reach

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000


class Mark:
    """Unpickled, it leaves a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


class Keys:
    """Files of keys, and a payload that tells whether it was unpickled."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.one, self.two = new_key("one"), new_key("two")
        self.mark = directory / "mark"
        self.evil = pickle.dumps(((Mark(str(self.mark)),), {}), 5)

    def file(self, *keys: str) -> str:
        path = self._directory / os.urandom(4).hex()
        path.write_text("\n".join(keys))
        return str(path)

    def call(self, id: bytes, kind: int = FrameKind.CALL, **given: Any) -> bytes:
        return encode(Frame(kind, id, name=b"tests.faults.jobs:take_bytes", body=self.evil, **given))


class Stranger:
    """A client without a key: what it has heard, and what it says."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.heard: list[Any] = []

    async def listen(self, subject: str) -> None:
        await self.client.subscribe(f"{self.prefix}.{subject}", cb=self._hear)
        await self.client.flush()

    async def _hear(self, message: Any) -> None:
        self.heard.append(message)

    async def first(self, room: str, kind: int | None = None) -> Any:
        """The first message heard in a room, of a kind of frame."""

        def found() -> list[Any]:
            start = f"{self.prefix}.{room}."
            return [
                it
                for it in self.heard
                if it.subject.startswith(start) and (kind is None or it.data[SEAL_SIZE + 3] == kind)
            ]

        await until(found)
        return found()[0]

    async def say(self, subject: str, data: bytes, reply: str = "", headers: Any = None) -> None:
        await self.client.publish(subject, data, reply=reply, headers=headers)
        await self.client.flush()

    async def deny(self, subject: str, reply: str = "") -> None:
        """What a server says where nobody hears: nobody can sign that."""
        block = b"NATS/1.0 503\r\n\r\n"
        line = f"HPUB {subject} {reply} {len(block)} {len(block)}\r\n"
        await self.client._send_command(line.encode() + block + b"\r\n")
        await self.client.flush()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENRO_NATS_KEY", raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


async def stranger_of(fleet: Fleet) -> Stranger:
    server = fleet.server
    return Stranger(await nats.connect(server.url, user=server.user, password=server.password), fleet.prefix)


@pytest.fixture
async def stranger(shared_fleet: Fleet) -> AsyncIterator[Stranger]:
    found = await stranger_of(shared_fleet)
    yield found
    await found.client.close()


def refusals(worker: Worker) -> Counter[str]:
    """What it counted, by reason."""
    return Counter(facts["reason"] for name, facts in worker.events if name == "message.rejected")


async def refused(worker: Worker, reason: str, count: int = 1) -> None:
    await until(lambda: refusals(worker)[reason] >= count)
    assert refusals(worker)[reason] == count


async def fails(pool: NatsExecutor, *hints: str) -> str:
    """A call ends in a SignatureError at once."""
    with pytest.raises(SignatureError) as caught:
        await asyncio.wait_for(pool.submit(jobs.take_bytes, b"abc"), 10)
    for hint in hints:
        assert hint in str(caught.value)
    assert not caught.value.retryable
    return str(caught.value)


# -- calls ---------------------------------------------------------------------


async def test_keys_are_rotated_without_a_failed_call(shared_fleet: Fleet, keys: Keys) -> None:
    one, two = keys.one, keys.two
    await shared_fleet.worker(key_file=keys.file(one, two), max_workers=1)
    for known in ((one,), (one, two), (two, one)):
        pool = shared_fleet.caller(key_file=keys.file(*known), timeout=10)
        assert await pool.submit(jobs.take_bytes, b"abc") == 3
        assert pool.metrics["rejected"] == 0
    # This one is heard, but does not know the key of the answer.
    message = await fails(shared_fleet.caller(key_file=keys.file(two), timeout=10), "'one'", "key two")
    assert one.partition(":")[2] not in message
    await fails(shared_fleet.caller(key_file=keys.file(new_key("three")), timeout=10), "key")


async def test_keys_of_the_same_id_and_other_bytes(shared_fleet: Fleet, keys: Keys) -> None:
    worker = await shared_fleet.worker(key_file=keys.file(keys.one), max_workers=1)
    pool = shared_fleet.caller(key_file=keys.file(new_key("one")), timeout=10)
    await fails(pool, "different keys of that id")
    assert refusals(worker) == {"wrong signature": 1}


async def test_who_has_no_key_is_told_at_once(shared_fleet: Fleet, keys: Keys, notes: Notes) -> None:
    worker = await shared_fleet.worker(key_file=keys.file(keys.one), max_workers=1)
    pool = shared_fleet.caller(timeout=20)
    with pytest.raises(SignatureError, match="GENRO_NATS_KEY"):
        await asyncio.wait_for(pool.submit(jobs.work, notes.path, "ran"), 10)
    assert refusals(worker) == {"unsigned": 1}
    assert worker.count("call.rejected") == 1
    assert notes.lines() == []


async def test_a_worker_without_a_key_is_not_believed_and_runs_nothing(
    shared_fleet: Fleet, keys: Keys, notes: Notes
) -> None:
    worker = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(key_file=keys.file(keys.one), timeout=20)
    with pytest.raises(SignatureError, match=r"unsigned.*GENRO_NATS_KEY"):
        await asyncio.wait_for(pool.submit(jobs.work, notes.path, "ran"), 10)
    assert refusals(worker) == {"no key": 1}
    assert notes.lines() == []


async def test_nothing_is_unpickled_that_is_not_signed(
    shared_fleet: Fleet, keys: Keys, stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path, timeout=10)
    own = Keyring.parse(new_key("one"), "a stranger's")
    call, inbox = f"{shared_fleet.prefix}.call.faults", f"{shared_fleet.prefix}.reply.stranger"
    sent = Counter[str]()
    forgeries: list[tuple[Callable[[bytes, bytes], bytes], str]] = [
        (lambda data, _: data, "unsigned"),
        (lambda data, context: own.seal(context, [data], time.time_ns()) + data, "wrong signature"),
        (lambda data, _: MAGIC + b"other\0\0\0" + bytes(40) + data, "unknown key"),
        (lambda data, _: MAGIC + data, "unknown key"),
    ]
    for forge, reason in forgeries:
        id = new_id()
        reply = f"{inbox}.{id.hex()}"
        await stranger.listen(reply.removeprefix(f"{shared_fleet.prefix}."))
        await stranger.say(call, forge(keys.call(id), f"{call}\n{reply}".encode()), reply)
        sent[reason] += 1
        await refused(worker, reason, sent[reason])
    # Where only the server speaks in signs of its own, a stranger brings no data in.
    await stranger.say(call, keys.call(id), reply, {"Status": "100"})
    await until(lambda: len([it for it in stranger.heard if it.subject.startswith(inbox)]) >= 5)
    assert await pool.submit(jobs.take_bytes, b"abc") == 3
    assert not keys.mark.exists()


async def test_a_changed_bit_anywhere_in_a_call(
    shared_fleet: Fleet, keys: Keys, notes: Notes, stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    await stranger.listen("call.>")
    pool = shared_fleet.caller(key_file=path, timeout=10)
    await pool.submit(jobs.work, notes.path, "ran")
    whole = await stranger.first("call")
    for at in range(len(whole.data)):
        data = bytearray(whole.data)
        data[at] ^= 1 << at % 8
        await stranger.client.publish(whole.subject, bytes(data), reply=whole.reply)
    await until(lambda: refusals(worker).total() >= len(whole.data))
    assert set(refusals(worker)) == {"unsigned", "unknown key", "wrong signature"}
    assert await pool.submit(jobs.take_bytes, b"abc") == 3
    assert notes.lines() == ["ran"]


async def test_a_call_that_is_sent_again_or_elsewhere(
    shared_fleet: Fleet, keys: Keys, notes: Notes, stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    other = await shared_fleet.worker(key_file=path, max_workers=1, subject="other")
    await stranger.listen(">")
    pool = shared_fleet.caller(key_file=path, timeout=10)
    assert await pool.submit(jobs.work, notes.path, "ran") == "ran"
    call = await stranger.first("call")
    await stranger.say(call.subject, call.data, call.reply)
    await refused(worker, "replayed")
    await stranger.say(call.subject, call.data, f"{shared_fleet.prefix}.reply.me.{'ab' * 16}")
    await refused(worker, "wrong signature")
    await stranger.say(f"{shared_fleet.prefix}.call.other", call.data, call.reply)
    await refused(other, "wrong signature")
    reply = await stranger.first("reply", FrameKind.REPLY)
    await stranger.say(call.subject, reply.data, reply.reply)  # reflected
    await refused(worker, "wrong signature", 2)
    assert await pool.submit(jobs.work, notes.path, "again") == "again"
    assert notes.counts() == {"ran": 1, "again": 1}


async def test_control_that_is_sent_again(shared_fleet: Fleet, keys: Keys, stranger: Stranger) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    await stranger.listen(">")
    pool = shared_fleet.caller(key_file=path, timeout=10)
    await pool.submit(jobs.take_bytes, b"abc")
    ack = await stranger.first("worker", FrameKind.ACK)
    await stranger.say(ack.subject, ack.data, ack.reply)
    await refused(worker, "replayed")
    await stranger.say(ack.subject, encode(Frame(FrameKind.CANCEL, new_id())))
    await stranger.say(f"{shared_fleet.prefix}.control.faults", encode(Frame(FrameKind.CANCEL, new_id())))
    await refused(worker, "unsigned", 2)
    assert worker.count("control.rejected") == 0  # it never came so far


async def test_a_running_call_can_not_be_ended_by_others_but_its_answer_can_be_spoiled(
    shared_fleet: Fleet, keys: Keys, notes: Notes, stranger: Stranger, tmp_path: Path
) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    await stranger.listen("call.>")
    pool = shared_fleet.caller(key_file=path, timeout=20)
    running = asyncio.create_task(pool.submit(jobs.fail_after, notes.path, str(tmp_path / "go")))
    await notes.wait()
    call = await stranger.first("call")
    id = bytes.fromhex(call.reply.rpartition(".")[2])
    await stranger.say(f"{shared_fleet.prefix}.control.faults", encode(Frame(FrameKind.CANCEL, id)))
    await refused(worker, "unsigned")
    assert not running.done()
    await stranger.say(call.reply, keys.call(id, FrameKind.REPLY))
    with pytest.raises(SignatureError, match="may have run"):
        await asyncio.wait_for(running, 10)
    (tmp_path / "go").touch()
    assert not keys.mark.exists()


async def test_an_answer_that_is_sent_again_changes_nothing(
    shared_fleet: Fleet, keys: Keys, stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    await shared_fleet.worker(key_file=path, max_workers=1)
    await stranger.listen("reply.>")
    pool = shared_fleet.caller(key_file=path, timeout=10)
    await pool.submit(jobs.take_bytes, b"abc")
    reply = await stranger.first("reply", FrameKind.REPLY)
    await stranger.say(reply.subject, reply.data, reply.reply)
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    await until(lambda: engine.facts()["distrusted"] == {"replayed": 1})
    assert await pool.submit(jobs.take_bytes, b"abcd") == 4


async def test_wrong_clocks_are_told_by_how_much(
    shared_fleet: Fleet, keys: Keys, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    wide = await shared_fleet.worker(key_file=path, max_workers=1, subject="wide", replay_window=300.0)
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() - 75 * SECOND)
    pool = shared_fleet.caller(key_file=path, timeout=10)
    with pytest.raises(SignatureError, match=r"7[4-9]\.\d s.*set the clocks"):
        await asyncio.wait_for(pool.submit(jobs.work, notes.path, "ran"), 10)
    assert refusals(worker) == {"too old": 1}
    assert notes.lines() == []
    tolerant = shared_fleet.caller(key_file=path, timeout=10, subject="wide", replay_window=300.0)
    assert await tolerant.submit(jobs.work, notes.path, "ran") == "ran"
    assert refusals(wide) == {}


async def test_a_call_recorded_long_ago(
    shared_fleet: Fleet, keys: Keys, notes: Notes, stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    await stranger.listen("call.>")
    first = await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path, timeout=10)
    await pool.submit(jobs.work, notes.path, "ran")
    call = await stranger.first("call")
    first.signal(signal.SIGTERM)
    await first.ended()
    # Of this one's memory the call is not; its window is over by the time that it is ready.
    sealed_at = time.monotonic()
    second = await shared_fleet.worker(key_file=path, max_workers=1, replay_window=0.5)
    await asyncio.sleep(max(0.0, sealed_at + 0.6 - time.monotonic()))
    await stranger.say(call.subject, call.data, call.reply)
    await refused(second, "too old")
    assert notes.lines() == ["ran"]


async def test_a_call_that_a_leaving_worker_did_not_start_goes_on_under_its_id(
    shared_fleet: Fleet, keys: Keys, notes: Notes
) -> None:
    """It comes to two workers with the same call id: no replay."""
    path = keys.file(keys.one)
    first = await shared_fleet.worker(key_file=path, max_workers=1, spares=0, drain_timeout=0.2)
    pool = shared_fleet.caller(key_file=path, timeout=20)
    busy = asyncio.create_task(pool.submit(jobs.work, notes.path, "busy", 5.0))
    await notes.wait()
    queued = asyncio.create_task(pool.submit(jobs.work, notes.path, "queued"))
    await until(lambda: pool.metrics["pending"] == 2)
    second = await shared_fleet.worker(key_file=path, max_workers=1)
    first.signal(signal.SIGTERM)
    assert await asyncio.wait_for(queued, 15) == "queued"
    with pytest.raises(ExecutorError):
        await asyncio.wait_for(busy, 15)
    assert refusals(second) == {}
    assert notes.counts()["queued"] == 1


async def test_items_progress_and_cancelling(shared_fleet: Fleet, keys: Keys, notes: Notes) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path, timeout=20)
    assert [n async for n in pool(jobs.numbers).stream(notes.path, 300)] == list(range(300))
    running = asyncio.create_task(pool.submit(jobs.work, notes.path, "running", 30))
    await until(lambda: "running" in notes.lines())
    running.cancel()
    assert await asyncio.wait_for(pool.submit(jobs.take_bytes, b"abc"), 10) == 3
    assert refusals(worker) == {}


async def test_a_variable_gives_keys_too_and_bad_ones_are_named(
    shared_fleet: Fleet, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRO_NATS_KEY", f"{keys.two},{keys.one}")
    worker = await shared_fleet.worker(max_workers=1)  # it inherits the variable
    monkeypatch.setenv("GENRO_NATS_KEY", keys.two)
    assert await shared_fleet.caller(timeout=10).submit(jobs.take_bytes, b"abc") == 3
    monkeypatch.setenv("GENRO_NATS_KEY", "hush")
    with pytest.raises(ConfigurationError, match="Key 1 in GENRO_NATS_KEY") as caught:
        await shared_fleet.caller(timeout=10).submit(jobs.take_bytes, b"abc")
    assert "hush" not in str(caught.value)
    secret = keys.two.partition(":")[2]
    shown = worker.log.read_text() + worker.log.with_suffix(".err").read_text()
    assert secret not in shown
    assert secret.encode() not in Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()


# -- large payloads ----------------------------------------------------------------


async def test_large_payloads_both_ways(shared_fleet: Fleet, keys: Keys) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path, timeout=30)
    data = os.urandom(5_000_000)
    assert await pool.submit(jobs.take_bytes, data) == len(data)
    assert len(await pool.submit(jobs.give_bytes, 5_000_000)) == 5_000_000
    sizes = [2_000_000, 10, 3_000_000]
    assert [len(item) async for item in pool(jobs.mixed_items).stream(sizes)] == sizes
    assert refusals(worker) == {}


@pytest.mark.parametrize("way", ["arguments", "result"])
async def test_a_changed_chunk_ends_the_call(
    shared_fleet: Fleet, keys: Keys, notes: Notes, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path, timeout=20)
    if way == "arguments":
        seal = Guard.seal

        def spoiled(self: Guard, subject: str, pieces: Any, *rest: Any) -> bytes:
            if ".bulk." in subject and len(pieces) > 1:  # a chunk: another byte than this is sent
                pieces = [pieces[0], b"x" + bytes(pieces[1])[1:], *pieces[2:]]
            return seal(self, subject, pieces, *rest)

        monkeypatch.setattr(Guard, "seal", spoiled)
    else:
        feed = Unsealing.__call__

        def changed(self: Unsealing, start: bytes, length: int) -> Any:
            inner = feed(self, start, length)
            return inner and (lambda piece: inner(memoryview(bytes([piece[0] ^ 1]) + bytes(piece[1:]))))

        monkeypatch.setattr(Unsealing, "__call__", changed)
    large = bytes(3_000_000)
    call = (
        pool.submit(jobs.note_bytes, notes.path, large)
        if way == "arguments"
        else pool.submit(jobs.give_bytes, len(large))
    )
    with pytest.raises(SignatureError, match=r"payload.*wrong"):
        await asyncio.wait_for(call, 15)
    assert notes.lines() == []
    # Those that were under way when the first one ended the pull are counted too; the worker's word of it may
    # come later than its answer.
    if way == "arguments":
        await until(lambda: refusals(worker)["wrong signature"] > 0)
    else:
        assert refusals(worker) == {}
    monkeypatch.undo()
    assert await pool.submit(jobs.take_bytes, bytes(3_000_000)) == 3_000_000


# -- tasks -------------------------------------------------------------------------


@pytest.fixture
async def tasks_stranger(shared_tasks: TaskFleet) -> AsyncIterator[Stranger]:
    found = await stranger_of(shared_tasks)
    yield found
    await found.client.close()


async def test_tasks_of_all_sorts(shared_tasks: TaskFleet, keys: Keys, notes: Notes) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=2)
    pool = shared_tasks.caller(key_file=path)
    work = pool(task_jobs.work)
    tasks = [
        await work.enqueue(notes.path, "now"),
        await work.options(delay=0.2).enqueue(notes.path, "later"),
        await work.options(key="k", priority="high").enqueue(notes.path, "keyed"),
        await work.options(id="mine").enqueue(notes.path, "own"),
        *await pool(task_jobs.work_item).enqueue_many([(notes.path, "many", 0.0)]),
    ]
    assert [await task.result(timeout=20) for task in tasks] == ["now", "later", "keyed", "own", "many"]
    retried = await pool(task_jobs.fail_once).options(retries=2, backoff=0.01).enqueue(notes.path + "2")
    states = [status.state async for status in retried.watch()]
    assert states[-1] is TaskState.COMPLETED
    await work.schedule("often", every=1.0, args=(notes.path, "run"))
    await notes.wait(6, 20)
    assert [it.name async for it in pool.schedules()] == ["often"]
    assert await pool.unschedule("often")
    waiting = await work.options(delay=60).enqueue(notes.path, "never")
    assert await waiting.cancel()
    assert {it.state async for it in pool.tasks()} >= {TaskState.COMPLETED, TaskState.CANCELLED}
    assert refusals(worker) == {}
    assert await pool.dead.list() == []


@pytest.mark.parametrize("mine", ["no key", "another key"])
async def test_who_can_t_verify_a_task_that_waits_can_t_cancel_it(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tmp_path: Path, mine: str
) -> None:
    """Workers refuse what such a caller asks: waiting for them would be in vain."""
    path = keys.file(keys.one)
    await shared_tasks.worker(key_file=path)
    pool = shared_tasks.caller(key_file=path)
    task = await pool(task_jobs.work).options(delay=60).enqueue(notes.path, "late")
    stranger = shared_tasks.caller(key_file=None if mine == "no key" else keys.file(keys.two))
    async with asyncio.timeout(5):
        with pytest.raises(SignatureError, match="What waits of task"):
            await stranger.task(task.id).cancel()
        assert await task.cancel()


async def test_a_forged_task_is_buried_and_never_run(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tasks_stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=1)
    pool = shared_tasks.caller(key_file=path)
    real = await pool(task_jobs.work).enqueue(notes.path, "real")
    assert await real.result(timeout=10) == "real"
    id = new_id()
    where = shared_tasks.subjects.task("normal", None, id.hex())
    await tasks_stranger.say(where, keys.call(id, flags=Flag.TASK))
    await refused(worker, "unsigned")

    async def buried() -> Any:
        return [it for it in await pool.dead.list() if it.reason == "signature"]

    (letter,) = await reach(buried)
    assert "unsigned" in letter.error
    with pytest.raises(SignatureError, match="unsigned"):
        await pool.dead.replay(letter.id)
    assert not keys.mark.exists()


async def test_a_stranger_s_message_does_not_end_a_task_that_is_there(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tasks_stranger: Stranger, tmp_path: Path
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=2)
    pool = shared_tasks.caller(key_file=path)
    task = await pool(task_jobs.show_pid).enqueue(notes.path, str(tmp_path / "go"))
    await notes.wait()
    where = shared_tasks.subjects.task("normal", None, task.id)
    await tasks_stranger.say(where, keys.call(bytes.fromhex(task.id), flags=Flag.TASK))
    await until(lambda: worker.count("task.unreadable") == 1)
    (tmp_path / "go").touch()
    assert await task.result(timeout=15) == "attempt 1"
    assert not keys.mark.exists()


async def test_a_bare_status_asks_for_nothing(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tasks_stranger: Stranger, tmp_path: Path
) -> None:
    path, subjects = keys.file(keys.one), shared_tasks.subjects
    worker = await shared_tasks.worker(key_file=path, max_workers=1)
    pool = shared_tasks.caller(key_file=path)
    kept = await pool(task_jobs.work).enqueue(notes.path, "kept")
    assert await kept.result(timeout=10) == "kept"
    running = await pool(task_jobs.show_pid).enqueue(notes.path, str(tmp_path / "go"))
    await notes.wait(2)
    for number, (verb, id) in enumerate((("cancel", running.id), ("forget", kept.id)), 1):
        await tasks_stranger.deny(subjects.about("ask", verb, id))
        await refused(worker, "status", 2 * number)  # all workers hear it, and one of them is chosen
    prefix = shared_tasks.prefix
    await tasks_stranger.listen("reply.=.stranger.*")
    others = (f"{prefix}.control.faults", presence_ask(prefix), f"{prefix}.call.faults")
    for number, subject in enumerate(others, 5):
        await tasks_stranger.deny(subject, f"{prefix}.reply.=.stranger.{number}")
        await refused(worker, "status", number)
    (tmp_path / "go").touch()
    assert await running.result(timeout=15) == "attempt 1"
    assert await shared_tasks.caller(key_file=path).task(kept.id).result(timeout=5) == "kept"
    answered = [it.subject.rpartition(".")[2] for it in tasks_stranger.heard]
    assert answered in ([], ["7"])  # who calls hears why not


async def test_a_forged_no_responders_starts_no_call_again(
    shared_fleet: Fleet, keys: Keys, notes: Notes, stranger: Stranger, tmp_path: Path
) -> None:
    path = keys.file(keys.one)
    for _ in range(2):
        await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path, timeout=20, workers_timeout=10)
    await stranger.listen("call.>")
    running = asyncio.create_task(pool.submit(jobs.hold, notes.path, str(tmp_path / "go")))
    call = await stranger.first("call")
    (pending,) = pool._home.engine._pending.values()  # type: ignore[union-attr]
    await until(lambda: pending.worker)  # its first beat
    for _ in range(3):
        await stranger.deny(call.reply)
    assert await pool.submit(jobs.take_bytes, b"abc") == 3  # they are heard by now
    assert pending.worker and not pending.retries and not running.done()
    (tmp_path / "go").touch()
    await running
    assert len(notes.lines()) == 1


async def test_a_forged_record_is_not_believed(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tasks_stranger: Stranger, tmp_path: Path
) -> None:
    path = keys.file(keys.one)
    await shared_tasks.worker(key_file=path, max_workers=1)
    pool = shared_tasks.caller(key_file=path)
    task = await pool(task_jobs.show_pid).enqueue(notes.path, str(tmp_path / "go"))
    await notes.wait()
    outcome = encode(Frame(FrameKind.REPLY, bytes.fromhex(task.id), body=pickle.dumps(Mark(str(keys.mark)))))
    forged = pack(Record(TaskState.COMPLETED, time.time()), outcome)
    result = asyncio.create_task(task.result(timeout=15))
    outcomes = pool._home.engine.tasks._outcomes  # type: ignore[union-attr]
    await until(lambda: (entry := outcomes._entries.get(task.id)) and entry.waiters)
    await tasks_stranger.say(shared_tasks.subjects.state(task.id), forged)
    with pytest.raises(SignatureError, match="unsigned"):
        await result
    (tmp_path / "go").touch()
    reader = shared_tasks.caller(key_file=path)  # it reads what is stored
    with pytest.raises((SignatureError, TaskFailedError, ExecutorError)):
        await reader.task(task.id).result(timeout=15)
    assert not keys.mark.exists()


async def test_recorded_tasks_and_records_put_elsewhere(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tasks_stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=1)
    other = await shared_tasks.worker(key_file=path, max_workers=1, subject="other")
    await tasks_stranger.listen(">")
    pool = shared_tasks.caller(key_file=path)
    task = await pool(task_jobs.work).enqueue(notes.path, "ran")
    await task.result(timeout=10)
    stored = await tasks_stranger.first("task")
    fresh = stored.subject.replace(task.id, new_id().hex())
    await tasks_stranger.say(fresh, stored.data)
    await tasks_stranger.say(stored.subject.replace(".faults.", ".other."), stored.data)
    await refused(worker, "wrong signature")
    await refused(other, "wrong signature")
    # As it was, it is the same task: that is settled.
    await tasks_stranger.say(stored.subject, stored.data)
    headers = {
        "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
        "Nats-Schedule-Target": stored.subject,
        "Nats-Msg-Id": "another",
    }
    await tasks_stranger.say(stored.subject.replace(".now.", ".later."), stored.data, headers=headers)
    async with shared_tasks.ledger(key_file=path) as ledger:
        await ledger.empty()
    again = await pool(task_jobs.work).enqueue(notes.path, "next")
    assert await again.result(timeout=10) == "next"
    assert notes.counts() == {"ran": 1, "next": 1}


async def test_a_copy_of_a_running_task_is_no_death_of_it(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tasks_stranger: Stranger, tmp_path: Path
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=2)
    await tasks_stranger.listen("task.>")
    pool = shared_tasks.caller(key_file=path)
    task = await pool(task_jobs.show_pid).enqueue(notes.path, str(tmp_path / "go"))
    await notes.wait()
    stored = await tasks_stranger.first("task")
    second = await shared_tasks.worker(key_file=path, max_workers=2)
    for _ in range(4):
        await tasks_stranger.say(stored.subject, stored.data)
    await until(lambda: refusals(worker)["replayed"] + refusals(second)["replayed"] == 4)
    (tmp_path / "go").touch()
    assert await task.result(timeout=15) == "attempt 1"
    assert len(notes.lines()) == 1


async def test_a_task_signed_with_a_key_that_is_gone_is_replayed_by_who_has_it(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes
) -> None:
    old, new = keys.one, keys.two
    await shared_tasks.worker(key_file=keys.file(new), max_workers=1)
    task = await shared_tasks.caller(key_file=keys.file(old, new))(task_jobs.work).enqueue(notes.path, "ran")
    with pytest.raises(TaskFailedError, match=r"signature.*'one'"):
        await task.result(timeout=10)
    pool = shared_tasks.caller(key_file=keys.file(new, old))
    (letter,) = await pool.dead.list()
    fresh = await pool.dead.replay(letter.id)
    assert await pool.task(fresh if isinstance(fresh, str) else fresh.id).result(timeout=10) == "ran"
    assert notes.lines() == ["ran"]


async def test_tasks_between_those_with_and_without_a_key(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=1)
    task = await shared_tasks.caller()(task_jobs.work).enqueue(notes.path, "ran")
    with pytest.raises(SignatureError, match="no key"):
        await task.result(timeout=15)
    worker.signal(signal.SIGTERM)
    await worker.ended()
    await shared_tasks.worker(max_workers=1)
    task = await shared_tasks.caller(key_file=path)(task_jobs.work).enqueue(notes.path, "ran")
    with pytest.raises(SignatureError, match="unsigned"):
        await task.result(timeout=15)
    assert notes.lines() == []


async def test_who_asks_after_the_refusal_hears_of_it_too(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes
) -> None:
    worker = await shared_tasks.worker(key_file=keys.file(keys.one), max_workers=1)
    task = await shared_tasks.caller()(task_jobs.work).enqueue(notes.path, "ran")
    await until(lambda: worker.count("task.unreadable") == 1)

    async def failure(asked: Any) -> Exception:
        try:
            return TypeError(f"not refused: {await asked}")
        except ExecutorError as error:
            return error

    # The record was told before it could be read.
    async def told() -> bool:
        return isinstance(await failure(task.status()), SignatureError)

    await reach(told)
    with pytest.raises(SignatureError, match="no key"):
        await task.result(timeout=10)


async def test_who_watches_hears_of_the_refusal(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes, tmp_path: Path
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=1)
    task = (
        await shared_tasks.caller(key_file=path)(task_jobs.work).options(delay=0.5).enqueue(notes.path, "a")
    )
    watching = task.watch()
    assert (await anext(watching)).state is TaskState.SCHEDULED
    other = shared_tasks.caller(key_file=keys.file(keys.two)).task(task.id).watch()
    assert (await anext(other)).state is TaskState.SCHEDULED
    with pytest.raises(SignatureError, match="'one'"):
        await asyncio.wait_for(anext(other), 10)
    assert [status.state async for status in watching][-1] is TaskState.COMPLETED
    assert refusals(worker) == {}


async def test_a_refused_task_with_a_refused_record_is_buried(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes
) -> None:
    path = keys.file(keys.one)
    worker = await shared_tasks.worker(key_file=path, max_workers=1)
    pool = shared_tasks.caller(key_file=path)
    task = await pool(task_jobs.fail_once).options(retries=3, backoff=2, backoff_factor=1).enqueue(notes.path)

    async def failed_once() -> bool:
        return (await task.status()).next_retry_at is not None

    await reach(failed_once)
    worker.signal(signal.SIGTERM)
    await worker.ended()
    await shared_tasks.worker(max_workers=1)

    async def buried() -> Any:
        return [it.reason for it in await shared_tasks.caller().dead.list()]

    assert await reach(buried) == ["signature"]


async def test_a_large_task_signed_with_a_key_that_is_gone(
    shared_tasks: TaskFleet, keys: Keys, notes: Notes
) -> None:
    old, new = keys.one, keys.two
    await shared_tasks.worker(key_file=keys.file(new), max_workers=1)
    caller = shared_tasks.caller(key_file=keys.file(old, new))
    task = await caller(jobs.take_bytes).enqueue(bytes(3_000_000))
    with pytest.raises(TaskFailedError, match=r"signature.*'one'"):
        await task.result(timeout=10)
    pool = shared_tasks.caller(key_file=keys.file(new, old))
    (letter,) = await pool.dead.list()
    fresh = await pool.dead.replay(letter.id)
    assert await pool.task(fresh.id).result(timeout=10) == 3_000_000


async def test_a_chunk_put_there_by_a_stranger(
    shared_tasks: TaskFleet, keys: Keys, tasks_stranger: Stranger
) -> None:
    path = keys.file(keys.one)
    await shared_tasks.worker(key_file=path, max_workers=1)
    await tasks_stranger.listen("blob.>")
    pool = shared_tasks.caller(key_file=path)
    task = await pool(jobs.take_bytes).options(delay=1.0).enqueue(bytes(3_000_000))
    await until(lambda: any(it.subject.endswith(".0") for it in tasks_stranger.heard))
    (chunk,) = (it for it in tasks_stranger.heard if it.subject.endswith(".0"))
    assert chunk.data[:4] == MAGIC
    await tasks_stranger.say(chunk.subject, keys.evil.ljust(len(chunk.data) - SEAL_SIZE, b"."))
    with pytest.raises((DecodeError, TaskFailedError), match="hash"):
        await task.result(timeout=15)
    assert not keys.mark.exists()
