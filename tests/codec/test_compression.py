"""Compressed frames: they come back as they were, and those that lie are refused before they take memory."""

from __future__ import annotations

import builtins
import importlib
import io
import os
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genro_nats.codec import values
from genro_nats.codec.compression import ACCEPTS, LEAST, accepted, expand, press, require
from genro_nats.codec.frame import Flag, Frame, FrameKind, decode, encode
from genro_nats.errors import CodecError, ConfigurationError, DecodeError, PayloadTooLargeError
from genro_nats.executor.pressing import PressingEncoder, make_encoder
from genro_nats.message import Call

ALGORITHMS = ["zstd", "lz4"]
FIXED = struct.Struct("!BBHQ")

pytestmark = pytest.mark.parametrize("algorithm", ALGORITHMS)


def plain(size: int = 100_000) -> Frame:
    frame = Frame(FrameKind.CALL, b"i" * 16, b"name", b'{"a": 1}', b"b" * size)
    frame.buffers = [b"read-only" * 10_000, bytearray(b"writable" * 10_000), b""]
    return frame


def pressed(algorithm: str, size: int = 100_000) -> Frame:
    frame, _ = decode(encode(press(plain(size), algorithm)))
    assert frame.flags & Flag.COMPRESSED
    return frame


def blob(algorithm: str, data: bytes) -> bytes:
    """What the library makes of data."""
    if algorithm == "lz4":
        return bytes(importlib.import_module("lz4.frame").compress(data))
    return bytes(importlib.import_module("backports.zstd").compress(data))


def without_end(algorithm: str, data: bytes) -> bytes:
    """All of the data, and no end."""
    if algorithm == "lz4":
        return blob(algorithm, data)[:-4]
    zstd = importlib.import_module("backports.zstd")
    options = {zstd.CompressionParameter.checksum_flag: 1}
    return bytes(zstd.compress(data, options=options))[:-4]


def forged(algorithm: str, content: bytes, n_body: int, table: tuple[int, ...] = ()) -> Frame:
    fixed = FIXED.pack({"zstd": 1, "lz4": 2}[algorithm], 0, len(table), n_body)
    body = fixed + struct.pack(f"!{len(table)}Q", *table) + content
    return Frame(FrameKind.CALL, bytes(16), body=body, flags=Flag.COMPRESSED)


def test_a_frame_comes_back_as_it_was(algorithm: str) -> None:
    sent = encode(press(plain(), algorithm))
    assert len(sent) < 10_000
    frame = expand(decode(sent)[0])
    body, writable, empty = frame.buffers
    assert isinstance(body, bytes)
    assert isinstance(empty, bytes)
    assert not memoryview(writable).readonly
    assert encode(_whole(frame)) == encode(plain())
    assert expand(frame) is frame  # what is not compressed stays


def _whole(frame: Frame) -> Frame:
    frame.body = bytes(frame.body)
    frame.buffers = [bytearray(b) if isinstance(b, memoryview) else b for b in frame.buffers]
    return frame


def test_header_name_and_meta_stay_readable(algorithm: str) -> None:
    frame = pressed(algorithm)
    assert (frame.name, frame.meta, frame.id, frame.kind) == (b"name", b'{"a": 1}', b"i" * 16, FrameKind.CALL)
    assert not frame.buffers


def test_buffers_added_on_the_way_come_last(algorithm: str) -> None:
    frame = pressed(algorithm)
    frame.buffers = [b"checkpoint"]
    found = expand(decode(encode(_whole(frame)))[0])
    assert found.buffers[-1] == b"checkpoint"
    assert len(found.buffers) == 4


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=200),
    buffers=st.lists(
        st.tuples(st.binary(min_size=1, max_size=50), st.integers(0, 3000), st.booleans()), max_size=6
    ),
)
def test_whatever_there_is_comes_back(
    algorithm: str, body: bytes, buffers: list[tuple[bytes, int, bool]]
) -> None:
    frame = Frame(FrameKind.REPLY, bytes(16), body=body)
    frame.buffers = [data * count if fixed else bytearray(data * count) for data, count, fixed in buffers]
    before = encode(frame)
    found = expand(decode(encode(press(frame, algorithm)))[0])
    assert encode(_whole(found)) == before


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutations_are_refused_or_harmless(algorithm: str, data: st.DataObject) -> None:
    """No other error than ours, and never more bytes than a header speaks of."""
    body = bytearray(pressed(algorithm).body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    body = body[:cut] if data.draw(st.booleans()) else body
    frame = Frame(FrameKind.CALL, bytes(16), body=bytes(body), flags=Flag.COMPRESSED)
    try:
        expand(frame, 1 << 20)
    except CodecError:
        return
    assert sum(map(len, [frame.body, *frame.buffers])) <= 1 << 20


def test_what_does_not_get_smaller_is_left_alone(algorithm: str) -> None:
    noise = os.urandom(200_000)
    for frame in (
        Frame(FrameKind.CALL, bytes(16), body=noise),
        Frame(FrameKind.CALL, bytes(16), body=b"x" * (LEAST - 1)),
        Frame(FrameKind.CALL, bytes(16), body=b"x" * 10_000, buffers=[noise]),
    ):
        before = encode(frame)
        assert encode(press(frame, algorithm)) == before
    assert press(Frame(FrameKind.CALL, bytes(16), body=b"x" * LEAST), algorithm).flags & Flag.COMPRESSED
    assert not press(plain(), None).flags


LIES: dict[str, tuple[Callable[[str], Frame], str]] = {
    "more than it says": (lambda a: forged(a, blob(a, bytes(50_000)), 49_999), "more than the 49,999"),
    "less than it says": (lambda a: forged(a, blob(a, bytes(50_000)), 50_001), "ends after 50,000 of 50,001"),
    "much less": (lambda a: forged(a, blob(a, bytes(50_000)), 3 << 20), "ends after"),
    "cut short": (lambda a: forged(a, blob(a, bytes(range(256)) * 400)[:-9], 102_400), "ends after|can't be"),
    "no end": (lambda a: forged(a, without_end(a, bytes(50_000)), 50_000), "ends after 50,000"),
    "two frames": (lambda a: forged(a, blob(a, bytes(50_000)) * 2, 100_000), "ends after"),
    "a second frame": (lambda a: forged(a, blob(a, bytes(50_000)) * 2, 50_000), "behind its end"),
    "garbage behind": (lambda a: forged(a, blob(a, bytes(50_000)) + b"garbage", 50_000), "behind its end"),
    "garbage": (lambda a: forged(a, b"garbage" * 100, 50_000), "can't be expanded"),
    "nothing": (lambda a: forged(a, b"", 50_000), "ends after|can't be expanded"),
    "a table that is cut": (
        lambda a: Frame(1, body=FIXED.pack(1, 0, 9, 5) + b"x", flags=512),
        "no algorithm",
    ),
    "another algorithm": (lambda a: Frame(1, body=FIXED.pack(3, 0, 0, 5) + b"x", flags=512), "no algorithm"),
    "no header": (lambda a: Frame(1, body=b"\1\0", flags=512), "cut short"),
    "empty": (lambda a: Frame(1, flags=512), "cut short"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_named(algorithm: str, lie: str) -> None:
    make, text = LIES[lie]
    with pytest.raises(DecodeError, match=text):
        expand(make(algorithm))


@pytest.mark.parametrize("stated", [1 << 40, (1 << 64) - 1])
def test_a_size_over_the_limit_is_named_before_anything_is_expanded(algorithm: str, stated: int) -> None:
    with pytest.raises(PayloadTooLargeError, match="max_payload_size"):
        expand(forged(algorithm, b"never read", stated))
    with pytest.raises(PayloadTooLargeError, match="1,000 is the most"):
        expand(forged(algorithm, b"never read", 500, (501,)), 1000)


def test_more_than_there_is_memory_for(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genro_nats.codec.compression._free_memory", lambda: 100 << 20)
    with pytest.raises(PayloadTooLargeError, match="there is memory for 104,857,600 here"):
        expand(forged(algorithm, b"never read", 101 << 20))


def test_a_bomb_takes_no_memory(algorithm: str) -> None:
    """1 GiB in a message of some KB that speaks of 1 MiB, and one that speaks of 1 GiB and holds nothing."""
    bomb = _bomb(algorithm, 64)
    for stated in (1 << 20, 2 << 30):
        content = bomb if stated == 1 << 20 else blob(algorithm, b"little")
        frame = forged(algorithm, content, stated)
        tracemalloc.start()
        with pytest.raises(DecodeError):
            expand(frame)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 << 20


def _bomb(algorithm: str, megabytes: int) -> bytes:
    out = io.BytesIO()
    if algorithm == "zstd":
        compressor = importlib.import_module("backports.zstd").ZstdCompressor()
    else:
        compressor = importlib.import_module("lz4.frame").LZ4FrameCompressor()
        out.write(compressor.begin())
    for _ in range(megabytes):
        out.write(compressor.compress(bytes(1 << 20)))
    out.write(compressor.flush())
    return out.getvalue()


def test_a_window_that_asks_for_much_memory_is_refused(algorithm: str) -> None:
    if algorithm == "lz4":
        pytest.skip("its blocks are 4 MiB at most")
    zstd = importlib.import_module("backports.zstd")
    options = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(bytes(range(256)) * 1000) + compressor.flush()
    with pytest.raises(DecodeError, match="can't be expanded"):
        expand(forged(algorithm, data, 256_000))


def _missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.import_module

    def nothing(name: str, *rest: Any) -> Any:
        if name in ("lz4.frame", "backports.zstd", "compression.zstd"):
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr("genro_nats.codec.compression.importlib.import_module", nothing)


def test_without_the_extra_it_is_named(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pressed(algorithm)
    _missing(monkeypatch)
    with pytest.raises(CodecError, match=rf'pip install "genro-nats\[{algorithm}\]"'):
        expand(frame)
    with pytest.raises(ConfigurationError, match=rf'pip install "genro-nats\[{algorithm}\]"'):
        require(algorithm)
    with pytest.raises(ConfigurationError, match="extra"):
        PressingEncoder(algorithm)
    assert accepted(ACCEPTS[algorithm]) is None


def test_a_call_says_what_its_answers_may_be(algorithm: str) -> None:
    frame = make_encoder(algorithm, "pickle", "p").frame(Call(builtins.len, (b"x" * 70_000,), {}), 1.0)
    assert frame.flags & Flag.COMPRESSED
    assert accepted(frame.flags) == algorithm
    assert accepted(0) is None
    assert not make_encoder(None, "pickle", "p").frame(Call(builtins.len, (b"x" * 70_000,), {}), 1.0).flags
    args, _ = values.loads(expand(frame).body, frame.buffers)
    assert args == (b"x" * 70_000,)
