"""Changes to messages: bits, bytes, lengths, fields at their extremes, splices. What changes is up to ``pick``."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

__all__ = ["FRAME_FIELDS", "Pick", "drawn", "extremes", "mutated", "random_pick"]

Pick = Callable[[int, int], int]  # a number from here to there, both included

# Offset and size of what a frame's header holds, in the order of its layout.
FRAME_FIELDS = ((0, 2), (2, 1), (3, 1), (4, 2), (6, 2), (8, 4), (12, 2), (14, 2), (16, 8), (24, 8), (32, 16))
_DOUBLES = (
    bytes.fromhex("7ff8000000000000"),
    bytes.fromhex("7ff0000000000000"),
    bytes.fromhex("fff0000000000000"),
)


def drawn(data: st.DataObject) -> Pick:
    """Numbers that hypothesis chooses, so that it can show the smallest failure."""
    return lambda low, high: data.draw(st.integers(low, high))


def random_pick(rng: random.Random) -> Pick:
    """Numbers of a generator with a seed, for messages by the thousand."""
    return rng.randint


def extremes(size: int) -> list[bytes]:
    """What a field of so many bytes can be at its worst."""
    top = 1 << 8 * size
    numbers = {0, 1, 2, top // 2 - 1, top // 2, top // 2 + 1, top - 2, top - 1, min(255, top - 1)}
    found = [number.to_bytes(size, "big") for number in sorted(numbers)]
    return [*found, *_DOUBLES] if size == 8 else found


def mutated(
    pick: Pick, corpus: Sequence[bytes], start: int = 0, fields: Sequence[tuple[int, int]] = FRAME_FIELDS
) -> bytes:
    """One of the corpus, changed in one to three ways; ``start``: where the layout with ``fields`` begins."""
    data = corpus[pick(0, len(corpus) - 1)]
    for _ in range(pick(1, 3)):
        way = pick(0, len(_WAYS))
        data = _field(pick, data, start, fields) if way == len(_WAYS) else _WAYS[way](pick, data, corpus)
    return data


def _field(pick: Pick, data: bytes, start: int, fields: Sequence[tuple[int, int]]) -> bytes:
    offset, size = fields[pick(0, len(fields) - 1)]
    worst = extremes(size)
    at = start + offset
    return data[:at] + worst[pick(0, len(worst) - 1)] + data[at + size :]


def _flip(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x01"
    at = pick(0, len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << pick(0, 7)]) + data[at + 1 :]


def _byte(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    at = pick(0, max(0, len(data) - 1))
    return data[:at] + bytes([pick(0, 255)]) + data[at + 1 :]


def _truncated(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return data[: pick(0, max(0, len(data) - 1))]


def _extended(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return data + bytes([pick(0, 255)]) * pick(1, 40)


def _cut_out(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    at = pick(0, max(0, len(data) - 1))
    return data[:at] + data[at + pick(1, 16) :]


def _doubled(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return data + data


def _spliced(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = corpus[pick(0, len(corpus) - 1)]
    at = pick(0, len(data))
    return data[:at] + other[pick(0, len(other)) if pick(0, 1) else at :]


def _noise(pick: Pick, data: bytes, corpus: Sequence[bytes]) -> bytes:
    at = pick(0, len(data))
    return data[:at] + bytes(pick(0, 255) for _ in range(pick(1, 24))) + data[at + 24 :]


_WAYS: Sequence[Callable[[Pick, bytes, Sequence[bytes]], bytes]] = (
    _flip,
    _byte,
    _truncated,
    _extended,
    _cut_out,
    _doubled,
    _spliced,
    _noise,
)
