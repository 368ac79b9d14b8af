"""The cutter takes chosen payloads out of the stream, and hands on every other byte, however it is cut."""

from __future__ import annotations

import random
from typing import Any

import pytest

from genro_nats.transport.transfer.cutter import HEAD, Cutter, Feed


class Inner:
    """nats-py's protocol, as the cutter sees it."""

    def __init__(self) -> None:
        self.got = bytearray()

    def data_received(self, data: bytes) -> None:
        self.got += data


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


def push(cutter: Cutter, data: bytes, rng: random.Random) -> None:
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
def test_any_cut(seed: int) -> None:
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
    push(Cutter(inner, {7: taken}), bytes(data), rng)
    assert inner.got == others
    assert taken.payloads == chosen


def test_a_payload_that_is_not_wanted_is_skipped() -> None:
    inner, taken = Inner(), Taken()
    cutter: Any = Cutter(inner, {7: taken})
    rng = random.Random(1)
    push(cutter, message(7, b"skip" + bytes(100_000)) + message(7, b"x" * 60) + b"PING\r\n", rng)
    assert taken.payloads == [b"x" * 60]
    assert inner.got == b"PING\r\n"
