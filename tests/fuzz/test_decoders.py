"""Every decoder of what comes from outside, over mutated bytes: a named error or a value, in time and memory."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genro_nats.cli import fleet
from genro_nats.codec import blob, compression, data
from genro_nats.codec.assembly import FrameAssembly
from genro_nats.codec.by_value import FunctionBlob, digest_of, function_field, inline_field, opened_inline
from genro_nats.codec.codecs import DATA, Codecs
from genro_nats.codec.frame import Flag, Frame, FrameKind, check, decode, decode_all, encode, passed_on
from genro_nats.codec.ids import split_ids
from genro_nats.codec.reference import Reference, refer, referred
from genro_nats.errors import CodecError
from genro_nats.events import Events
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.letter import pack_letter, unpack_letter
from genro_nats.tasks.message import for_attempt, meta_of, read_message
from genro_nats.tasks.options import TaskOptions
from genro_nats.tasks.record import Record, Stored, pack
from genro_nats.tasks.status import TaskState
from genro_nats.transport.blobs import read_head
from genro_nats.transport.direct import StoredMessage
from genro_nats.transport.headers import Headers, header_block
from genro_nats.transport.nats import Message
from genro_nats.transport.schedules import parse
from genro_nats.worker.balance import letters
from genro_nats.worker.balance.decisions import may_move
from genro_nats.worker.callers import CallerVersions
from genro_nats.worker.intake import reference_in
from tests.fuzz.mutate import FRAME_FIELDS, Pick, drawn, extremes, mutated

# The same examples each time: a run of CI shows what was changed, not its luck. A failure prints the example.
steady = settings(
    derandomize=True,
    database=None,
    print_blob=True,
    deadline=timedelta(seconds=10),
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ID = bytes(range(16))
SUBJECT = f"genro.task.faults.now.normal.=.{ID.hex()}"
MEMORY = 8 << 20  # bytes that a lie of some bytes may cost at most


class Decoder(NamedTuple):
    """What is read, from which bytes; where the layout begins, and its fields."""

    read: Callable[[bytes], object]
    corpus: Sequence[bytes]
    fields: Sequence[tuple[int, int]] = FRAME_FIELDS


def frames() -> list[bytes]:
    meta = meta_of(ID.hex(), "m:f", "ab" * 16, TaskOptions(retries=3, backoff=2.0, expires=5.0), 1e9)
    task = Flag.TASK | Flag.PROGRESS
    made = [
        Frame(FrameKind.CALL, ID, b"m:f", b'{"trace": "00"}', b"body" * 9, [b"one" * 5, bytearray(b"two")]),
        Frame(FrameKind.CALL, ID, b"m:f", meta, b"body", flags=task, seconds=30.0),
        Frame(FrameKind.CALL, ID, b"m:f", b"", b"body", flags=task),
        Frame(FrameKind.ACK, body=ID * 5, meta=b'{"version": "0.1.0"}'),
        Frame(FrameKind.CREDIT, ID, seconds=5.0),
        Frame(FrameKind.WAITING, body=bytes.fromhex("3ff0000000000000"), seconds=3.0),
        Frame(FrameKind.CHUNK, ID, body=b"chunk" * 30, seconds=512.0),
    ]
    start = encode(made[0])
    by_digest = FunctionBlob(b"pickle" * 300, []).field + b'{"trace": "00"}'
    stored = blob.Blob(blob.BlobId("=", ID), 1024, bytes(32), 5000, (7, 8))
    return [
        *map(encode, made),
        encode(Frame(FrameKind.CALL, ID, b"m:f", by_digest, b"body", flags=Flag.BY_DIGEST)),
        encode(Frame(FrameKind.CALL, ID, b"m:f", b"", b"b", [inline_field(b"p")], flags=Flag.BY_VALUE)),
        encode(Frame(FrameKind.REFUSED, ID, b"genro.reply.=.x." + b"ab" * 16)) + start,
        refer(start, Reference(ID, 5_000_000, "genro.bulk.=.x.owner")),
        blob.refer(made[1], stored),
        *(encode(compression.press(large(), name)) for name in ("zstd", "lz4")),
    ]


def large() -> Frame:
    return Frame(FrameKind.REPLY, ID, body=b"abcdefgh" * 3000, buffers=[bytearray(b"x" * 9000), b"y" * 7000])


def values() -> list[bytes]:
    rich = [
        (1, {2.5}, frozenset(["x"]), {(1, 2): None}, 1 << 90, "\ud800", bytearray(b"ab")),
        [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), timedelta(1, 2, 3), Decimal("1.5"), UUID(int=5)],
        [numpy.arange(12.0).reshape(3, 4), numpy.float32(1.5), 1 + 2j],
        {"plain": [1, 2.5, "text", b"bytes", None, True], "nested": {"a": [[[]]]}},
    ]
    return [data.dumps(value)[0] for value in rich]


def errors() -> list[bytes]:
    try:
        try:
            raise OSError(2, "no such thing", "there")
        except OSError as error:
            error.add_note("a note")
            raise ExceptionGroup("several", [ValueError(1, (2,)), KeyError("k")]) from error
    except ExceptionGroup as group:
        return [DATA.dump_error(group), b'{"nodes": [], "traceback": "text"}']


def records() -> list[bytes]:
    outcome = encode(Frame(FrameKind.REPLY, ID, body=b"value"))
    running = Record(TaskState.RUNNING, 1e9, 3, 2, 1, claim="c", worker="w", pid=7, started_at=1e9 + 1)
    return [pack(running), pack(Record(TaskState.COMPLETED, 1e9, task=SUBJECT, function="m:f"), outcome)]


def _decode_all(body: bytes) -> None:
    for frame in decode_all(body):
        repr(frame)
        split_ids(frame.body)


def _call(body: bytes) -> None:
    """What a worker's parent does with a call before a child gets it."""
    head = check(body)
    if may_move(head.hops):
        passed_on(body, 1.0)
    if head.flags & Flag.REFERRED:
        reference_in(body, 1 << 30)
    elif head.flags & Flag.BY_DIGEST:
        function_field(body, head)
    digest_of(body, head)
    frame, _ = decode(body)
    if frame.buffers:
        opened_inline(frame.buffers[0], "m:f")


def _task(body: bytes) -> None:
    task = read_message(body, SUBJECT)
    assert 0 < len(task.id.encode()) < 2000
    for_attempt(task, 2, b"checkpoint")


def _record(body: bytes) -> None:
    stored = Stored(body, 5)
    stored.record.status("id")
    if stored.outcome:
        decode(stored.outcome)


def _stored_blob(body: bytes) -> None:
    frame, found = blob.blob_in(body)
    assert found.n_chunks <= found.size // blob.MIN_CHUNK + 1
    blob.start(frame, found)


def _expanded(body: bytes) -> None:
    frame = compression.expand(decode(body)[0], 1 << 20)
    assert sum(map(len, [frame.body, *frame.buffers])) <= max(1 << 20, len(body))


def _peers(body: bytes) -> None:
    if letters.is_passed(body):
        letters.passed(Message("genro.peers.s.x", "genro.peers.s.y", body, ""))
    for frame in decode_all(body):
        letters.told(frame, 1.0)
        letters.count(frame)


def _versions(body: bytes) -> None:
    CallerVersions(Events([]))(body)


def _headers(body: bytes) -> None:
    headers = Headers(body)
    assert isinstance(headers.status, str)
    dict(headers)
    with contextlib.suppress(ValueError):  # which is what it says
        parse(headers)


def _head(body: bytes) -> None:
    found = read_head(StoredMessage(f"genro.blob.s.=.{ID.hex()}.head", 1, "2026-01-01T00:00:00Z", {}, body))
    assert found is None or all(isinstance(owner, str) for owner in found.owners)


REFERRED = blob.refer(
    Frame(FrameKind.CALL, ID, b"m:f"), blob.Blob(blob.BlobId("=", ID), 1024, bytes(32), 5000, (7, 8))
)
_careful = Codecs(only_data=True)
_letter = DeadLetter("id", "m:f", "died", "text", 3, 3, 1e9)
_shown = json.dumps(
    {
        **dict.fromkeys(("began", "uptime", "cpu", "memory"), 1.0),
        **dict.fromkeys(("worker", "host", "state", "version", "code"), "x"),
        "pools": [{"subject": "s", "children": []}],
    }
).encode()
_block = header_block({"Nats-Schedule": "@every 5000ms", "Nats-Schedule-Target": SUBJECT, "Status": "x"})

DECODERS = {
    "frames": Decoder(_decode_all, frames()),
    "call": Decoder(_call, frames()),
    "reference": Decoder(lambda body: referred(decode(body)[0].body), frames()),
    "task": Decoder(_task, frames()),
    "blob": Decoder(
        _stored_blob, [REFERRED], [*FRAME_FIELDS, (51, 8), (59, 8), (75, 4), (111, 8), (119, 2), (121, 8)]
    ),
    "content": Decoder(blob.content_in, frames()),
    "compressed": Decoder(
        _expanded, frames()[-2:], [*FRAME_FIELDS, (48, 1), (49, 1), (50, 2), (52, 8), (60, 8)]
    ),
    "peers": Decoder(_peers, frames()),
    "versions": Decoder(_versions, [b'{"version": "0.1.0"}', b'{"version": "1.0.0rc1"}'], [(0, 4)]),
    "data": Decoder(
        lambda body: data.loads(body, [b"buffer", bytearray(5)]), values(), [(0, 4), (5, 1), (9, 8)]
    ),
    "error": Decoder(lambda body: _careful.load_error(Flag.DATA, body), errors(), [(0, 1), (9, 1)]),
    "record": Decoder(
        _record, records(), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 4), (24, 8), (56, 2), (66, 2)]
    ),
    "letter": Decoder(unpack_letter, [pack_letter(_letter, SUBJECT, frames()[1])], [(0, 4), (4, 1)]),
    "presence": Decoder(fleet._read, [_shown], [(0, 8)]),
    "headers": Decoder(_headers, [_block, b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 408 Request Timeout\r\n\r\n"]),
    "head": Decoder(_head, [json.dumps([SUBJECT, "genro.state.s.=.=.x"]).encode()], [(0, 2)]),
}


@pytest.mark.parametrize("name", DECODERS)
@steady
@given(draw=st.data())
def test_a_named_error_or_a_value(name: str, draw: st.DataObject) -> None:
    decoder = DECODERS[name]
    changed = mutated(drawn(draw), decoder.corpus, 0, decoder.fields)
    with contextlib.suppress(CodecError):
        decoder.read(changed)


@pytest.mark.parametrize("name", DECODERS)
@steady
@given(noise=st.binary(max_size=200))
def test_any_bytes(name: str, noise: bytes) -> None:
    for body in (noise, DECODERS[name].corpus[0][:8] + noise):
        with contextlib.suppress(CodecError):
            DECODERS[name].read(body)


@pytest.mark.parametrize("name", DECODERS)
def test_the_whole_ones_are_read(name: str) -> None:
    """Else what is changed would be refused for another reason than the change."""
    read = []
    for body in DECODERS[name].corpus:
        with contextlib.suppress(CodecError):
            DECODERS[name].read(body)
            read.append(body)
    assert read


@pytest.mark.parametrize("name", DECODERS)
def test_no_field_s_extreme_takes_memory(name: str) -> None:
    decoder = DECODERS[name]
    tracemalloc.start()
    try:
        for body in decoder.corpus:
            for offset, size in decoder.fields:
                for worst in extremes(size):
                    tracemalloc.reset_peak()
                    before = tracemalloc.get_traced_memory()[0]
                    with contextlib.suppress(CodecError):
                        decoder.read(body[:offset] + worst + body[offset + size :])
                    assert tracemalloc.get_traced_memory()[1] - before < MEMORY, (offset, worst.hex())
    finally:
        tracemalloc.stop()


@steady
@given(draw=st.data())
def test_a_frame_in_pieces_is_read_as_in_one(draw: st.DataObject) -> None:
    pick = drawn(draw)
    changed = mutated(pick, frames())
    assert _assembled(pick, changed) == _checked(changed)


def _checked(body: bytes) -> object:
    try:
        check(body)
    except CodecError:
        return None
    return _facts(decode(body)[0])


def _assembled(pick: Pick, body: bytes) -> object:
    try:
        assembly, at = FrameAssembly(len(body)), 0
        while at < len(body):
            step = pick(1, 64)
            assembly.write(memoryview(body)[at : at + step])
            at += step
        return _facts(assembly.frame())
    except CodecError:
        return None


def _facts(frame: Frame) -> object:
    seconds = str(frame.seconds)
    parts = [bytes(frame.body), *map(bytes, frame.buffers)]
    return frame.kind, frame.id, frame.name, frame.meta, parts, frame.flags, frame.hops, seconds
