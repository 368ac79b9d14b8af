"""The cutter takes chosen payloads out of the stream, and hands on every other byte, however it is cut."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from genro_nats.transport.transfer.cutter import HEAD, Cutter, Feed

pytestmark = pytest.mark.anyio


class Inner:
    """nats-py's protocol, as the cutter sees it."""

    def __init__(self) -> None:
        self.got = bytearray()

    def data_received(self, data: bytes) -> None:
        self.got += data


class Transport:
    """What a cutter asks of the connection's transport."""

    resting = False

    def pause_reading(self) -> None:
        self.resting = True

    def resume_reading(self) -> None:
        self.resting = False

    def is_closing(self) -> bool:
        return False


def cutting(inner: Inner, taken: Taken) -> tuple[Any, Transport]:
    transport: Any = Transport()
    return Cutter(transport, inner, {7: taken}), transport


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


def push(cutter: Any, data: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(data):
        room = cutter.get_buffer(-1)
        assert len(room)
        count = min(len(room), rng.choice((1, 2, 13, 500, 300_000)), len(data) - at)
        room[:count] = data[at : at + count]
        cutter.buffer_updated(count)
        at += count


def message(sid: int, payload: bytes, reply: str = "") -> bytes:
    words = ["MSG", "a.b", str(sid), *([reply] if reply else []), str(len(payload))]
    return " ".join(words).encode() + b"\r\n" + payload + b"\r\n"


@pytest.mark.parametrize("seed", range(30))
async def test_any_cut(seed: int) -> None:
    rng = random.Random(seed)
    data, others, chosen = bytearray(), bytearray(), []
    for _ in range(rng.choice((1, 5, 40))):
        kind = rng.randrange(6)
        payload = rng.randbytes(rng.choice((0, 1, 47, 48, 49, 5000, 600_000)))
        if kind == 0:
            chosen.append(payload)
            data += message(7, payload, rng.choice(("", "r.e")))
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
    inner, taken = Inner(), Taken()
    push(cutting(inner, taken)[0], bytes(data), rng)
    assert inner.got == others
    assert taken.payloads == chosen


async def test_a_payload_that_is_not_wanted_is_skipped() -> None:
    inner, taken = Inner(), Taken()
    cutter, _ = cutting(inner, taken)
    rng = random.Random(1)
    push(cutter, message(7, b"skip" + bytes(100_000)) + message(7, b"x" * 60) + b"PING\r\n", rng)
    assert taken.payloads == [b"x" * 60]
    assert inner.got == b"PING\r\n"


async def test_others_get_their_turn() -> None:
    """uvloop reads on as long as there is something to read: after a while the cutter stops it."""
    cutter, transport = cutting(Inner(), Taken())
    data = message(7, bytes(200_000))
    push(cutter, data, random.Random(1))
    assert not transport.resting
    push(cutter, data, random.Random(2))
    assert transport.resting
    await asyncio.sleep(0)
    assert not transport.resting
