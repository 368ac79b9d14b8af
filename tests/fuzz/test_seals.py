"""Seals and streams of bytes, however they are cut: what was changed is never believed, and never as a part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats.codec.frame import HEADER_SIZE, Frame, FrameKind, encode
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Flaw, Keyring, new_key
from genro_nats.transport.guard import Guard
from genro_nats.transport.reader import Feed, Reader
from genro_nats.transport.transfer.raw import take_whole
from genro_nats.transport.transfer.sealed import Unsealing
from tests.fuzz.mutate import drawn, mutated
from tests.fuzz.test_decoders import ID, frames, steady
from tests.transport.reading import Hearing, Inner, Transport

SEAL = ((0, 4), (4, 8), (12, 8), (20, 8), (44, 8))
CONTEXT = b"genro.call.s\ngenro.reply.=.x.1"
keys = Keyring.parse(f"{new_key('one')} {new_key('two')}", "a test")
plain = frames()


def sealed(bodies: Sequence[bytes], context: bytes = CONTEXT) -> list[bytes]:
    return [keys.seal(context, [body], time.time_ns()) + body for body in bodies]


whole = sealed(plain)


@steady
@given(draw=st.data())
def test_only_what_was_sealed_is_right(draw: st.DataObject) -> None:
    pick = drawn(draw)
    changed = mutated(pick, whole, 0, SEAL)
    found = keys.verify(CONTEXT, changed)
    assert isinstance(found, Flaw) or (changed in whole and found[0] == changed[SEAL_SIZE:])
    opening = keys.opening(CONTEXT, changed[: SEAL_SIZE + pick(0, 9)])
    if isinstance(opening, Flaw):
        assert isinstance(found, Flaw)
        assert opening.reason == found.reason
        return
    at = SEAL_SIZE
    while at < len(changed):
        step = pick(1, 99)
        opening.update(changed[at : at + step])
        at += step
    verdict = opening.verdict()
    assert (verdict is None) == (changed in whole)
    assert verdict is None or (isinstance(found, Flaw) and found.reason == verdict.reason)


class Taken:
    """What takes chunks behind the seals: a chunk counts once its last byte has come."""

    def __init__(self) -> None:
        self.complete: list[bytes] = []

    def __call__(self, start: bytes, length: int) -> Feed | None:
        assert len(start) >= HEADER_SIZE
        got = bytearray(start)
        if len(got) == length:
            self.complete.append(bytes(got))
            return None

        def feed(piece: memoryview) -> None:
            got.extend(piece)
            if len(got) == length:
                self.complete.append(bytes(got))

        return feed


@steady
@given(draw=st.data())
def test_a_changed_chunk_or_word_is_never_complete(draw: st.DataObject) -> None:
    """Every message of a transfer ends as handed on whole, or as counted by reason: nothing in between."""
    inbox = "genro.bulk.=.x."
    chunk = Frame(FrameKind.CHUNK, ID, body=b"chunk" * 40, seconds=0.0)
    word = Frame(FrameKind.GRANT, ID, body=bytes(8))
    context = [f"{inbox}{ID.hex()}\n".encode(), f"{inbox}owner\n".encode()]
    good = [sealed([encode(frame)], made)[0] for frame, made in zip((chunk, word), context, strict=True)]
    guard, taken = Guard(keys), Taken()
    unsealing = Unsealing(guard, inbox, taken, lambda pull, flaw: None)
    changed = mutated(drawn(draw), good, SEAL_SIZE)
    take_whole(changed, unsealing, SEAL_SIZE)
    assert len(taken.complete) + guard.rejected.total() == 1
    assert not taken.complete or (changed in good and taken.complete == [changed[SEAL_SIZE:]])


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_chunk_that_nobody_sealed_is_counted_whatever_its_size(size: int) -> None:
    """Also one for a pull that is over, and a word that is too long for one."""
    inbox = "genro.bulk.=.x."
    for kind, takes in ((FrameKind.CHUNK, True), (FrameKind.CHUNK, False), (FrameKind.GRANT, True)):
        guard, taken = Guard(keys), Taken()
        refused: list[bytes] = []
        taker = taken if takes else lambda start, length: None
        unsealing = Unsealing(guard, inbox, taker, lambda pull, flaw, found=refused: found.append(pull))  # type: ignore[misc]
        forged = sealed([encode(Frame(kind, ID, body=bytes(size), seconds=0.0))], b"elsewhere")[0]
        take_whole(forged, unsealing, SEAL_SIZE)
        assert guard.rejected.total() == 1
        assert taken.complete == []


class Loop:
    """Turns of the event loop that never come."""

    def call_soon(self, *_: Any) -> None: ...


@pytest.fixture(autouse=True, scope="module")
def no_loop() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genro_nats.transport.reader.asyncio.get_running_loop", Loop)
        patch.setattr("genro_nats.transport.reader._LONGEST_LINE", 100)
        patch.setattr("genro_nats.transport.reader._ROOM", 4096)
        yield


LINES = [
    b"MSG a.b 7 5\r\nhello\r\n",
    b"MSG a.b 7 r.e 60\r\n" + b"x" * 60 + b"\r\n",
    b"MSG a.b 8 4\r\nPING\r\n",
    b"MSG a.b 9 r.e 40\r\n" + b"y" * 40 + b"\r\n",
    b"HMSG a 9 12 14\r\nNATS/1.0\r\n\r\nok\r\n",
    b"HMSG a 9 r.e 12 5000\r\nNATS/1.0\r\n\r\n" + b"z" * 4988 + b"\r\n",
    b"HMSG a 7 12 14\r\nNATS/1.0\r\n\r\nok\r\n",
    b"PING\r\n",
    b"-ERR 'x'\r\n",
    b"INFO {" + b"x" * 150 + b"}\r\n",
]


@steady
@given(draw=st.data())
def test_a_stream_of_bytes_is_cut_alike_in_any_pieces(draw: st.DataObject) -> None:
    """Also one that no server sends: nothing is lost or invented, and nothing goes on for ever."""
    pick = drawn(draw)
    stream = b"".join(mutated(pick, LINES, 0, ((0, 4), (8, 2), (10, 2))) for _ in range(pick(1, 6)))
    results = []
    for steps in ([len(stream)], [pick(1, 90) for _ in range(9)], [1]):
        inner, payloads = Inner(), list[bytearray]()

        def take(start: bytes, length: int, found: list[bytearray] = payloads) -> Feed:
            found.append(bytearray(start))
            return found[-1].extend

        transport: Any = Transport()
        reader, heard = Reader(transport, inner), Hearing()
        reader.takers[b"7"], reader.heard[b"9"] = take, heard
        at = turn = 0
        while at < len(stream):
            room = reader.get_buffer(-1)
            step = min(steps[turn % len(steps)], len(stream) - at, len(room))
            room[:step] = stream[at : at + step]
            reader.buffer_updated(step)
            at += step
            turn += 1
        results.append((inner.got, payloads, heard.messages))
    assert results[0] == results[1] == results[2]
    pieces = [results[0][0], *results[0][1], *(part for raw in results[0][2] for part in raw)]
    assert sum(map(len, pieces)) <= len(stream)


def test_a_seal_is_no_frame() -> None:
    assert MAGIC[:2] != plain[0][:2]
