"""Frames survive the trip, and nothing but a frame is taken for one."""

from __future__ import annotations

import struct
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genro_nats.codec.frame import (
    HEADER_SIZE,
    KINDS,
    Frame,
    FrameKind,
    check,
    decode,
    decode_all,
    encode,
    name_of,
    passed_on,
    peek,
    with_seconds,
)
from genro_nats.errors import DecodeError, PayloadTooLargeError

frames = st.builds(
    Frame,
    st.sampled_from(list(KINDS)),
    st.binary(min_size=16, max_size=16),
    name=st.binary(max_size=40),
    meta=st.binary(max_size=40),
    body=st.binary(max_size=200),
    buffers=st.lists(st.one_of(st.binary(max_size=100), st.binary(max_size=100).map(bytearray)), max_size=4),
    flags=st.integers(0, 2**16 - 1),
    hops=st.integers(0, 2**16 - 1),
    seconds=st.floats(allow_nan=False),
)


def facts(frame: Frame) -> tuple[object, ...]:
    return (
        frame.kind,
        frame.id,
        frame.name,
        frame.meta,
        bytes(frame.body),
        [(type(b) is bytes, bytes(b)) for b in frame.buffers],
        frame.flags,
        frame.hops,
        frame.seconds,
    )


@given(frames)
def test_a_frame_survives(frame: Frame) -> None:
    data = encode(frame)
    again, end = decode(data)
    assert end == len(data)
    assert facts(again) == facts(frame)
    head = check(data)
    assert head == peek(data)
    assert name_of(data, head) == frame.name


@given(st.lists(frames, max_size=5))
def test_frames_end_to_end(several: list[Frame]) -> None:
    data = b"".join(map(encode, several))
    assert [facts(f) for f in decode_all(data)] == [facts(f) for f in several]


@given(frames, st.data())
@settings(max_examples=300)
def test_a_frame_cut_short_is_refused(frame: Frame, data: st.DataObject) -> None:
    encoded = encode(frame)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with pytest.raises(DecodeError):
        decode(cut)
    with pytest.raises(DecodeError):
        check(cut)


@given(frames, st.binary(min_size=1, max_size=20))
def test_a_frame_with_more_behind_is_not_one_frame(frame: Frame, more: bytes) -> None:
    with pytest.raises(DecodeError):
        check(encode(frame) + more)


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_any_bytes_end_in_a_named_error(data: bytes) -> None:
    try:
        list(decode_all(data))
    except DecodeError:
        return
    assert data == b""


@given(frames, st.integers(0, HEADER_SIZE - 1), st.integers(0, 255))
@settings(max_examples=500)
def test_a_header_with_a_wrong_byte_never_does_worse_than_a_named_error(
    frame: Frame, at: int, byte: int
) -> None:
    data = bytearray(encode(frame))
    data[at] = byte
    for read in (check, decode):
        try:
            read(bytes(data))
        except DecodeError as error:
            assert str(error)  # noqa: PT017


def test_another_version_is_named() -> None:
    data = bytearray(encode(Frame(FrameKind.CALL)))
    data[2] = 7
    with pytest.raises(DecodeError, match="version 7; this side speaks version 1") as caught:
        decode(bytes(data))
    assert caught.value.version == 7


def test_lengths_over_the_limits_are_refused_before_anything_is_read() -> None:
    data = bytearray(encode(Frame(FrameKind.CALL)))
    struct.pack_into("!H", data, 6, 60_000)
    with pytest.raises(DecodeError, match="name 60000"):
        decode(bytes(data) + bytes(100_000))


def test_too_many_buffers_are_refused_by_the_sender() -> None:
    with pytest.raises(PayloadTooLargeError, match="4097 separate buffers"):
        encode(Frame(FrameKind.CALL, buffers=[b""] * 4097))


def test_buffers_arrive_writable_and_private() -> None:
    data = encode(Frame(FrameKind.CALL, buffers=[bytearray(b"abc"), b"def"]))
    (writable, fixed), (second, _) = decode(data)[0].buffers, decode(data)[0].buffers
    assert isinstance(writable, bytearray)
    writable[0] = ord("x")
    assert bytes(second) == b"abc"
    assert fixed == b"def"
    assert isinstance(fixed, bytes)


def test_no_deadline_is_infinity() -> None:
    assert decode(encode(Frame(FrameKind.CALL)))[0].seconds == inf


@given(frames, st.floats(allow_nan=False))
def test_another_time_left(frame: Frame, seconds: float) -> None:
    again, _ = decode(with_seconds(encode(frame), seconds))
    assert again.seconds == seconds
    again.seconds = frame.seconds
    assert facts(again) == facts(frame)


@given(frames, st.floats(0, 1e6), st.integers(0, 2))
def test_a_call_that_is_passed_on_has_one_hop_more(frame: Frame, seconds: float, hops: int) -> None:
    frame.hops = hops
    data = encode(frame)
    again, end = decode(passed_on(data, seconds))
    assert end == len(data)
    assert (again.hops, again.seconds) == (hops + 1, seconds)
    frame.hops, frame.seconds = again.hops, again.seconds
    assert facts(again) == facts(frame)
