"""What strangers and broken peers send: each message ends by name and counted once, the worker serves on."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import random
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest

from genro_nats import (
    CodecError,
    DecodeError,
    ExecutorError,
    FunctionNotFoundError,
    NatsExecutor,
    PayloadTooLargeError,
    PythonVersionError,
    RemoteError,
    RemoteTraceback,
    WorkerLostError,
)
from genro_nats.codec.by_value import inline_field
from genro_nats.codec.exceptions import load_error
from genro_nats.codec.frame import HEADER, Flag, Frame, FrameKind, decode, encode
from tests.faults import jobs
from tests.faults.conftest import Fleet, Notes, Worker, until

pytestmark = pytest.mark.anyio
PICKLED = pickle.dumps(((), {}), 5)


class Stranger:
    """A plain client of the server, beside a pool and its worker."""

    def __init__(self, client: Any, fleet: Fleet, worker: Worker, pool: NatsExecutor) -> None:
        self.client = client
        self.worker = worker
        self.pool = pool
        self.inbox = f"{fleet.prefix}.reply.stranger"
        self.calls = f"{fleet.prefix}.call.faults"
        self.control = f"{fleet.prefix}.control.faults"

    async def ask(self, data: bytes, id: bytes, limit: float = 3.0) -> BaseException | Frame:
        """Send it as a call and give the outcome."""
        reply = f"{self.inbox}.{id.hex()}"
        subscription = await self.client.subscribe(reply)
        await self.client.publish(self.calls, data, reply=reply)
        message = await subscription.next_msg(limit)
        await subscription.unsubscribe()
        frame, _ = decode(message.data)
        assert frame.id == id
        return load_error(frame.body) if frame.kind == FrameKind.ERROR else frame

    async def serves(self) -> None:
        """The worker answers, without having lost its connection meanwhile."""
        assert await asyncio.wait_for(self.pool.submit(jobs.take_bytes, b"abc"), 3) == 3
        assert self.worker.process.poll() is None
        assert self.worker.count("server.down") == 0


@pytest.fixture(params=["process", "threads", "async-process"])
async def stranger(shared_fleet: Fleet, request: pytest.FixtureRequest) -> AsyncIterator[Stranger]:
    given = {"kind": "async-process"} if request.param == "async-process" else {}
    threads = 2 if request.param == "threads" else 1
    worker = await shared_fleet.worker(max_workers=1, threads=threads, **given)
    server = shared_fleet.server
    client = await nats.connect(server.url, user=server.user, password=server.password)
    yield Stranger(client, shared_fleet, worker, shared_fleet.caller(timeout=10))
    await client.close()


def call(id: bytes, name: bytes = b"tests.faults.jobs:pid", **given: Any) -> bytes:
    return encode(Frame(FrameKind.CALL, id, name=name, **{"body": PICKLED, **given}))


def header(id: bytes, **changed: int) -> bytes:
    fields = {"magic": b"GN", "version": 1, "kind": 1, "flags": 0, "name": 0, "meta": 0, "buffers": 0}
    fields |= {"hops": 0, "seconds": math.inf, "body": 0, "id": id, **changed}
    return HEADER.pack(*fields.values())


def nested() -> bytes:
    return b"\x80\x05" + b"(" * 200_000 + b"t" * 200_000 + b"."


BAD: list[tuple[str, Any, type[BaseException], str]] = [
    ("empty", lambda id: b"", DecodeError, "cut short"),
    ("text", lambda id: b"hello " * 20, DecodeError, "does not begin"),
    ("truncated", lambda id: call(id)[:-1], DecodeError, "speaks of"),
    ("more", lambda id: call(id) + b"x", DecodeError, "speaks of"),
    ("two", lambda id: call(id) + call(id), DecodeError, "speaks of"),
    ("version", lambda id: header(id, version=9), DecodeError, "version 9"),
    ("kind", lambda id: header(id, kind=2), DecodeError, "kind 2"),
    (
        "flags",
        lambda id: call(id, flags=32768),
        DecodeError,
        "flags 0x8000, which this worker (genro-nats",
    ),
    ("huge body", lambda id: header(id, body=1 << 63), DecodeError, "speaks of"),
    ("huge name", lambda id: header(id, name=65535), DecodeError, "over its limits"),
    ("huge meta", lambda id: header(id, meta=1 << 31), DecodeError, "over its limits"),
    ("huge buffers", lambda id: header(id, buffers=65535), DecodeError, "over its limits"),
    (
        "huge table",
        lambda id: header(id, buffers=2) + struct.pack("!2Q", (1 << 63) - 1, (1 << 63) - 1),
        DecodeError,
        "speaks of",
    ),
    ("nan", lambda id: call(id, seconds=math.nan), DecodeError, "not a number"),
    ("past", lambda id: call(id, seconds=-math.inf), ExecutorError, "deadline"),
    ("no pickle", lambda id: call(id, body=b"garbage"), DecodeError, "unpickled"),
    ("no arguments", lambda id: call(id, body=pickle.dumps(5)), DecodeError, "packed"),
    ("carried", lambda id: call(id, body=pickle.dumps(((), {}, 5))), DecodeError, "packed|carried"),
    ("nested", lambda id: call(id, body=nested()), DecodeError, "unpickled|packed"),
    ("meta", lambda id: call(id, meta=b"{"), DecodeError, "meta"),
    ("meta list", lambda id: call(id, meta=b"[1]"), DecodeError, "meta"),
    ("blob", lambda id: call(id, flags=Flag.BY_VALUE), DecodeError, "without its function"),
    (
        "bad blob",
        lambda id: call(id, flags=Flag.BY_VALUE, buffers=[inline_field(b"garbage")]),
        DecodeError,
        "unpickled",
    ),
    (
        "foreign blob",
        lambda id: call(id, flags=Flag.BY_VALUE, buffers=[b"\x03\x63garbage"]),
        PythonVersionError,
        "Python 3.99",
    ),
    (
        "empty blob",
        lambda id: call(id, flags=Flag.BY_VALUE, buffers=[b""]),
        PythonVersionError,
        "by value",
    ),
    ("no digest", lambda id: call(id, flags=Flag.BY_DIGEST), DecodeError, "without the digest"),
    (
        "short digest",
        lambda id: call(id, flags=Flag.BY_DIGEST, meta=b"short"),
        DecodeError,
        "without the digest",
    ),
    (
        "foreign digest",
        lambda id: call(id, flags=Flag.BY_DIGEST, meta=b"\x03\x63" + bytes(40)),
        PythonVersionError,
        "Python 3.99",
    ),
    (
        "huge function",
        lambda id: call(id, flags=Flag.BY_DIGEST, meta=inline_field(b"\xff" * 40)),
        PayloadTooLargeError,
        "max_payload_size",
    ),
    ("module", lambda id: call(id, name=b"no.such.module:f"), FunctionNotFoundError, "no.such.module"),
    ("name", lambda id: call(id, name=b"tests.faults.jobs:no"), FunctionNotFoundError, "no 'no'"),
    ("nothing", lambda id: call(id, name=b""), FunctionNotFoundError, "function name"),
    ("dots", lambda id: call(id, name=b"..:.."), FunctionNotFoundError, ""),
    ("not UTF-8", lambda id: call(id, name=b"\xff\xfe:x"), FunctionNotFoundError, ""),
    ("no stream", lambda id: call(id, flags=Flag.STREAM), ExecutorError, "generator"),
]


async def test_calls_that_are_none(stranger: Stranger) -> None:
    wrong = []
    rejected = 0
    for what, make, kind, text in BAD:
        id = os.urandom(16)
        begin = time.monotonic()
        outcome = await stranger.ask(make(id), id)
        if not isinstance(outcome, kind) or (
            text.split("|")[0] not in str(outcome) and text.split("|")[-1] not in str(outcome)
        ):
            wrong.append((what, repr(outcome)[:300]))
        assert time.monotonic() - begin < 1.0, what
        if stranger.worker.count("call.rejected") > rejected:
            rejected += 1
        assert stranger.worker.count("call.rejected") == rejected, what
    assert not wrong
    assert rejected >= 13
    assert stranger.worker.count("child.lost") == 0
    await stranger.serves()


async def test_calls_without_a_usable_reply_subject(stranger: Stranger) -> None:
    client, id = stranger.client, os.urandom(16)
    replies = [
        "",
        "x",
        "a.b.c",
        f"{stranger.inbox}.{os.urandom(16).hex()}",
        f"{stranger.inbox}." + "y" * 3900,
    ]
    for number, reply in enumerate(replies, 1):
        await client.publish(stranger.calls, call(id), reply=reply)
        await until(lambda: stranger.worker.count("call.rejected") == number)  # noqa: B023
    # nats-py would refuse to send bytes that are not UTF-8; the server passes them on.
    raw = (
        f"PUB {stranger.calls} ".encode()
        + b"\xff\xfe "
        + f"{len(call(id))}\r\n".encode()
        + call(id)
        + b"\r\n"
    )
    client._transport.write(raw)
    await client.flush()
    for subject in (stranger.calls, stranger.control):
        client._transport.write(f"HPUB {subject} 12 12\r\n".encode() + b"NATS/9.9\r\n\xff\xfe" + b"\r\n")
    await client.flush()
    await stranger.serves()


async def test_control_messages_that_are_none(stranger: Stranger, notes: Notes) -> None:
    running = asyncio.create_task(stranger.pool.submit(jobs.work, notes.path, "a", 1.0))
    await notes.wait()
    id = next(iter(stranger.pool._home.engine._pending))  # type: ignore[union-attr]
    messages = [
        b"",
        b"x" * 100,
        encode(Frame(FrameKind.ACK, body=b"abc")),
        encode(Frame(FrameKind.QUERY, body=b"abc" * 1000, name=b"\xff")),
        encode(Frame(FrameKind.CREDIT, id)),
        encode(Frame(FrameKind.CREDIT, id, seconds=math.nan)),
        encode(Frame(FrameKind.CREDIT, id, seconds=-5.0)),
        encode(Frame(FrameKind.CREDIT, id, seconds=5.0)),
        encode(Frame(FrameKind.CANCEL)),
        encode(Frame(FrameKind.CALL, id)),
        encode(Frame(FrameKind.REPLY, id)),
        encode(Frame(99, id)),
        header(id, kind=4, body=1 << 62),
        *(encode(Frame(FrameKind.CANCEL, os.urandom(16))) for _ in range(100)),
    ]
    for message in messages:
        await stranger.client.publish(stranger.control, message)
        await stranger.client.publish(stranger.control, message * 3, reply="x.y")
    await stranger.client.flush()
    assert await asyncio.wait_for(running, 5) == "a"
    await stranger.serves()
    assert stranger.worker.count("child.lost") == 0
    assert stranger.worker.count("control.rejected") > 5


def mutated(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        # The body stays whole: a changed pickle can do anything, by its nature.
        changed[rng.randrange(min(len(data), 48 + 21))] = rng.randrange(256)
    return bytes(changed) if kind == 2 else b"GN\x01" + rng.randbytes(rng.randrange(45, 120))


async def test_random_bytes(stranger: Stranger) -> None:
    rng = random.Random(1)
    inbox = stranger.pool
    await inbox.submit(jobs.pid)
    callers = inbox._home.engine._inbox  # type: ignore[union-attr]
    for turn in range(3000):
        id = rng.randbytes(16)
        data = mutated(rng, call(id))
        await stranger.client.publish(stranger.calls, data, reply=f"{stranger.inbox}.{id.hex()}")
        await stranger.client.publish(stranger.control, mutated(rng, encode(Frame(FrameKind.CREDIT, id))))
        await stranger.client.publish(callers + id.hex(), mutated(rng, encode(Frame(FrameKind.REPLY, id))))
        if turn % 250 == 0:
            await stranger.client.flush()
            await stranger.serves()
    await stranger.client.flush()
    await stranger.serves()
    await until(lambda: stranger.worker.count("call.rejected") > 1000)


async def test_garbage_in_a_callers_inbox(stranger: Stranger, notes: Notes) -> None:
    pool = stranger.pool
    running = asyncio.create_task(pool.submit(jobs.work, notes.path, "a", 0.5))
    await notes.wait()
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    (id,) = engine._pending
    inbox = engine._inbox
    for message in (
        b"",
        b"x" * 60,
        encode(Frame(FrameKind.BEAT, body=b"abc")),
        encode(Frame(FrameKind.PROGRESS, id, body=b"garbage")),
        encode(Frame(FrameKind.ITEM, id, body=b"garbage")),
        encode(Frame(99, id)),
        encode(Frame(FrameKind.REPLY, os.urandom(16), body=b"x")),
        header(id, kind=2, body=1 << 62),
    ):
        await stranger.client.publish(inbox + id.hex(), message)
        await stranger.client.publish(inbox + "not-hex", message, headers={"Status": "503"})
        await stranger.client.publish(inbox + "not-hex", message, reply="z" * 3800)
    await stranger.client.flush()
    assert await asyncio.wait_for(running, 5) == "a"
    for kind in (FrameKind.REPLY, FrameKind.ERROR):
        running = asyncio.create_task(pool.submit(jobs.work, notes.path, "b", 0.5))
        await until(lambda: engine._pending)
        (id,) = engine._pending
        await stranger.client.publish(inbox + id.hex(), encode(Frame(kind, id, body=b"garbage")))
        with pytest.raises(DecodeError):
            await asyncio.wait_for(running, 5)
    assert engine._connection.connected
    await stranger.serves()


async def test_what_functions_do_wrong(stranger: Stranger) -> None:
    pool = stranger.pool
    for kind in ("reduce", "lock"):
        with pytest.raises(
            CodecError, match=r"result of tests.faults.jobs:give_unpicklable can't be sent back"
        ):
            await pool.submit(jobs.give_unpicklable, kind)
    with pytest.raises(RemoteError, match="SystemExit"):
        await asyncio.wait_for(pool.submit(jobs.give_unpicklable, "exit"), 3)
    with pytest.raises(jobs.Picky) as picky:
        await pool.submit(jobs.raise_picky)
    assert isinstance(picky.value.__cause__, RemoteTraceback)
    with pytest.raises(RemoteError, match="NoText"):
        await pool.submit(jobs.raise_no_text)
    with pytest.raises(RecursionError):
        await pool.submit(jobs.recurse)
    with pytest.raises(RemoteError, match="SystemExit"):
        await pool.submit(jobs.sys_exit, 1)
    with pytest.raises(WorkerLostError, match="code 9"):
        await pool.submit(jobs.exit_now, 9)
    await stranger.serves()


async def test_100_mb_over_the_limit(shared_fleet: Fleet) -> None:
    """Over the server's max_payload it goes in chunks; over ``max_payload_size`` the error says so."""
    worker = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(timeout=20)
    await pool.submit(jobs.pid)
    size = pool._home.engine._connection.max_payload + (100 << 20)  # type: ignore[union-attr]
    assert await pool.submit(jobs.take_bytes, bytes(size)) == size
    assert len(await pool.submit(jobs.give_bytes, size)) == size
    modest = shared_fleet.caller(max_payload_size=50 << 20)
    with pytest.raises(PayloadTooLargeError, match=r"take_bytes.*max_payload_size") as failed:
        await asyncio.wait_for(modest.submit(jobs.take_bytes, bytes(100 << 20)), 5)
    assert failed.value.limit == 50 << 20
    with pytest.raises(PayloadTooLargeError, match="max_payload_size"):
        await asyncio.wait_for(modest.submit(jobs.give_bytes, 100 << 20), 10)
    assert await pool.submit(jobs.take_bytes, b"abc") == 3
    assert worker.count("server.down") == 0
    assert worker.count("child.lost") == 0


async def test_a_worker_that_takes_and_sends_less(shared_fleet: Fleet) -> None:
    worker = await shared_fleet.worker(max_workers=1, max_payload_size=3 << 20)
    pool = shared_fleet.caller(timeout=10)
    with pytest.raises(PayloadTooLargeError, match=r"this worker takes 3,145,728 \(max_payload_size\)"):
        await pool.submit(jobs.take_bytes, bytes(4 << 20))
    with pytest.raises(PayloadTooLargeError, match=r"give_bytes takes .* \(max_payload_size\)"):
        await pool.submit(jobs.give_bytes, 4 << 20)
    assert len(await pool.submit(jobs.give_bytes, 2 << 20)) == 2 << 20
    assert worker.count("call.rejected") == 1


async def test_what_goes_inline_is_no_larger_either(shared_fleet: Fleet) -> None:
    await shared_fleet.worker(max_workers=1)
    modest = shared_fleet.caller(timeout=10, max_payload_size=100_000)
    with pytest.raises(
        PayloadTooLargeError, match=r"take_bytes takes 200,\d+ bytes; pool 'faults' sends 100,000"
    ):
        await modest.submit(jobs.take_bytes, bytes(200_000))
    answers = r"An answer of 200,\d+ bytes; pool 'faults' takes 100,000 \(max_payload_size\)"
    with pytest.raises(PayloadTooLargeError, match=answers):
        await modest.submit(jobs.give_bytes, 200_000)
    stream = modest.stream(jobs.mixed_items, [50_000, 60_000, 200_000])
    assert [len(await anext(stream)) for _ in range(2)] == [50_000, 60_000]
    with pytest.raises(PayloadTooLargeError, match=answers):
        await anext(stream)
    assert await modest.submit(jobs.take_bytes, bytes(90_000)) == 90_000


async def test_what_a_worker_sends_less_of_is_named(shared_fleet: Fleet) -> None:
    worker = await shared_fleet.worker(max_workers=1, max_payload_size=100_000)
    pool = shared_fleet.caller(timeout=10, inline_limit=8 << 20)
    before = await pool.submit(jobs.pid)
    with pytest.raises(PayloadTooLargeError, match="this worker takes 100,000"):
        await pool.submit(jobs.take_bytes, bytes(200_000))
    stream = pool.stream(jobs.mixed_items, [50_000, 200_000])
    assert len(await anext(stream)) == 50_000
    with pytest.raises(
        PayloadTooLargeError, match=r"An item of .*mixed_items takes 200,\d+ bytes; .*100,000"
    ):
        await anext(stream)
    showing = pool(jobs.show_and_return).options(on_progress=lambda update: None)
    with pytest.raises(
        PayloadTooLargeError, match=r"Progress of .*show_and_return takes 200,\d+ bytes"
    ) as caught:
        await showing(200_000)
    assert "in show_and_return" in str(caught.value.__cause__)  # where the function showed it
    with pytest.raises(RemoteError, match="LookupError") as failed:
        await pool.submit(jobs.fail_with, 200_000)
    assert failed.value.type_name == "builtins:LookupError"
    assert "in fail_with" in failed.value.traceback
    assert "The exception of tests.faults.jobs:fail_with takes" in str(failed.value)
    assert await pool.submit(jobs.pid) == before
    assert worker.count("call.rejected") == 1


@pytest.mark.parametrize("count", [10, 3_000_000])
async def test_a_worker_of_another_protocol_version_is_named(
    shared_fleet: Fleet, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(timeout=20)
    assert await pool.submit(jobs.take_bytes, b"abc") == 3
    monkeypatch.setattr("genro_nats.codec.frame.VERSION", 2)  # of this process: the caller's
    begin = time.monotonic()
    with pytest.raises(DecodeError, match=r"protocol version 1; this side speaks version 2\. Bring caller"):
        await pool.submit(jobs.take_bytes, bytes(count))
    assert time.monotonic() - begin < 4  # it is told so, and does not wait for silence
    monkeypatch.undo()
    assert await pool.submit(jobs.take_bytes, b"abc") == 3
