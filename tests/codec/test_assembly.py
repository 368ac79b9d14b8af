"""Frames put together from pieces are the frames that were cut up."""

from __future__ import annotations

import random

import pytest

from genro_nats.codec.assembly import FrameAssembly
from genro_nats.codec.frame import HEADER_SIZE, Frame, FrameKind, decode, encode
from genro_nats.errors import DecodeError


def write(data: bytes, size: int, rng: random.Random) -> Frame:
    assembly = FrameAssembly(size)
    at = 0
    while at < len(data):
        step = rng.choice((1, 7, 48, 1000, 100_000))
        assembly.write(memoryview(data)[at : at + step])
        at += step
    return assembly.frame()


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_gives_the_same_frame(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice((0, 1, 65_536, 200_000)) for _ in range(rng.choice((0, 1, 3)))]
    buffers = [rng.choice((bytes, bytearray))(rng.randbytes(size)) for size in sizes]
    frame = Frame(
        FrameKind.REPLY, rng.randbytes(16), b"n" * rng.choice((0, 5)), b"{}" * rng.choice((0, 1)), b"b" * 9
    )
    frame.buffers, frame.seconds, frame.flags = buffers, 1.25, 8
    data = encode(frame)
    found, expected = write(data, len(data), rng), decode(data)[0]
    for field in ("kind", "id", "name", "meta", "flags", "hops", "seconds", "body"):
        assert getattr(found, field) == getattr(expected, field), field
    assert [bytes(b) for b in found.buffers] == [bytes(b) for b in buffers]
    for ours, given in zip(found.buffers, buffers, strict=True):
        assert isinstance(ours, bytes) == isinstance(given, bytes)
        assert isinstance(ours, bytes) or not memoryview(ours).readonly


@pytest.mark.parametrize("off", [-1, 1, 1 << 40])
def test_a_frame_of_another_size_than_announced(off: int) -> None:
    data = encode(Frame(FrameKind.REPLY, body=b"body", buffers=[b"x" * 70_000]))
    with pytest.raises(DecodeError, match="whose header speaks of"):
        write(data, len(data) + off, random.Random(0))


def test_limits_and_foreign_bytes() -> None:
    data = bytearray(encode(Frame(FrameKind.REPLY, body=b"body")))
    data[12:14] = b"\xff\xff"
    with pytest.raises(DecodeError, match="over its limits"):
        write(bytes(data), len(data), random.Random(0))
    data = bytearray(encode(Frame(FrameKind.REPLY, body=b"body")))
    data[2] = 9
    with pytest.raises(DecodeError, match="version 9"):
        write(bytes(data), len(data), random.Random(0))


def test_more_than_the_frame() -> None:
    data = encode(Frame(FrameKind.REPLY, body=b"body"))
    assembly = FrameAssembly(len(data))
    assembly.write(memoryview(data))
    assert assembly.frame().body == b"body"
    with pytest.raises(DecodeError, match="more bytes"):
        assembly.write(memoryview(b"x"))
    assert len(data) == HEADER_SIZE + 4


@pytest.mark.parametrize(("at", "field"), [(6, b"\x04\x00"), (8, b"\x00\x01\x00\x00"), (12, b"\x00\x01")])
def test_a_header_that_speaks_of_more_than_the_frame_has(at: int, field: bytes) -> None:
    data = bytearray(encode(Frame(FrameKind.REPLY, body=b"body")))
    data[at : at + len(field)] = field
    with pytest.raises(DecodeError, match="speaks of more"):
        write(bytes(data), len(data), random.Random(0))


def test_a_frame_that_is_asked_for_too_early() -> None:
    data = encode(Frame(FrameKind.REPLY, body=b"body"))
    with pytest.raises(DecodeError, match="cut short"):
        write(data[:-1], len(data), random.Random(0))
