"""The reader takes messages and payloads out of the stream, and hands on every other byte, however it is cut."""

from __future__ import annotations

import asyncio
import random
import weakref
from typing import Any

import pytest

from genro_nats.transport.reader import HEAD, Feed, Reader
from tests.transport.reading import Hearing, Inner, Transport

pytestmark = pytest.mark.anyio


def reading(inner: Inner, taken: Taken, heard: Hearing | None = None) -> tuple[Any, Transport]:
    transport: Any = Transport()
    reader = Reader(transport, inner)
    reader.takers[b"7"] = taken
    reader.heard[b"9"] = heard or Hearing()
    return reader, transport


class Taken:
    """Payloads of one subscription."""

    def __init__(self) -> None:
        self.payloads: list[bytearray] = []

    def __call__(self, start: bytes, length: int) -> Feed | None:
        assert len(start) == min(length, HEAD)
        if start.startswith(b"skip"):
            return None
        payload = bytearray(start)
        self.payloads.append(payload)
        return payload.extend


def push(reader: Any, data: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(data):
        room = reader.get_buffer(-1)
        assert len(room)
        count = min(len(room), rng.choice((1, 2, 13, 500, 300_000)), len(data) - at)
        room[:count] = data[at : at + count]
        reader.buffer_updated(count)
        at += count


HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"


def message(sid: int, payload: bytes, reply: str = "", headers: bytes = b"") -> bytes:
    sizes = [str(len(headers))] if headers else []
    words = ["HMSG" if headers else "MSG", "a.b", str(sid), *([reply] if reply else []), *sizes]
    size = len(headers) + len(payload)
    return " ".join([*words, str(size)]).encode() + b"\r\n" + headers + payload + b"\r\n"


@pytest.mark.parametrize("seed", range(30))
async def test_any_cut(seed: int) -> None:
    rng = random.Random(seed)
    data, others, chosen, whole = bytearray(), bytearray(), [], []
    for _ in range(rng.choice((1, 5, 40))):
        kind = rng.randrange(8)
        payload = rng.randbytes(rng.choice((0, 1, 47, 48, 49, 5000, 600_000)))
        if kind == 0:
            chosen.append(payload)
            data += message(7, payload, rng.choice(("", "r.e")))
            continue
        if kind > 5:
            reply, headers = rng.choice(("", "r.e")), HEADERS if kind == 6 else b""
            whole.append((b"a.b", reply.encode(), payload, headers))
            data += message(9, payload, reply, headers)
            continue
        piece = [
            b"PING\r\n",
            b"-ERR 'x'\r\n",
            message(8, payload),
            b"HMSG a 7 12 " + str(12 + len(payload)).encode() + b"\r\nNATS/1.0\r\n\r\n" + payload + b"\r\n",
            b"INFO {" + b"x" * 20_000 + b"}\r\n" if rng.random() < 0.2 else b"PONG\r\n",
        ][kind - 1]
        others += piece
        data += piece
    inner, taken, heard = Inner(), Taken(), Hearing()
    push(reading(inner, taken, heard)[0], bytes(data), rng)
    assert inner.got == others
    assert taken.payloads == chosen
    assert heard.messages == whole


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a.b 9",
        b"MSG a.b 9 -5",
        b"MSG a.b 9 r.e x.y 5",
        b"MSG a.b 9 five",
        b"MSG a.b 9 \xb2",
        b"HMSG a.b 9 5",
        b"HMSG a.b 9 6 5",
        b"HMSG a.b 9 +5 5",
        b"HMSG a.b 9 r.e x.y 0 5",
        b"MSG  a.b 9 5",
        b"MSG a.b 9 " + b"9" * 5000,
        b"HMSG a.b 9 " + b"9" * 5000 + b" 5",
    ],
)
async def test_what_no_server_says_is_left_to_nats_py(line: bytes) -> None:
    """It ends the connection."""
    inner, heard = Inner(), Hearing()
    push(reading(inner, Taken(), heard)[0], line + b"\r\nhello\r\n", random.Random(1))
    assert inner.got == line + b"\r\nhello\r\n"
    assert not heard.messages


async def test_a_payload_that_is_not_wanted_is_skipped() -> None:
    inner, taken = Inner(), Taken()
    reader, _ = reading(inner, taken)
    rng = random.Random(1)
    push(reader, message(7, b"skip" + bytes(100_000)) + message(7, b"x" * 60) + b"PING\r\n", rng)
    assert taken.payloads == [b"x" * 60]
    assert inner.got == b"PING\r\n"


async def test_what_ends_a_connection_is_a_loss_for_nats_py() -> None:
    """It would go on with a connection that ended by anything but an OSError."""
    lost: list[Exception | None] = []
    inner: Any = Inner()
    inner.connection_lost = lost.append
    for error in (None, OSError("a"), ValueError("b")):
        reading(inner, Taken())[0].connection_lost(error)
    assert lost[0] is None
    assert isinstance(lost[1], OSError) and str(lost[1]) == "a"
    assert isinstance(lost[2], ConnectionAbortedError) and "b" in str(lost[2])


async def test_a_lost_connection_keeps_nothing_that_was_under_way() -> None:
    inner: Any = Inner()
    inner.connection_lost = lambda error: None
    taken = Taken()
    reader, _ = reading(inner, taken)
    push(reader, message(7, b"x" * 1000)[:500], random.Random(1))
    held = weakref.ref(taken)
    del taken
    assert held() is not None
    reader.connection_lost(None)
    assert held() is None


async def test_others_get_their_turn() -> None:
    """uvloop reads on as long as what it reads fills the room: after a while the reader stops it."""
    reader, transport = reading(Inner(), Taken())
    data = message(7, bytes(2_000_000))
    room = reader.get_buffer(-1)
    room[:-1] = data[: len(room) - 1]
    reader.buffer_updated(len(room) - 1)
    assert not transport.resting
    room = reader.get_buffer(-1)
    room[:] = data[: len(room)]
    reader.buffer_updated(len(room))
    assert transport.resting
    await asyncio.sleep(0)
    assert not transport.resting
