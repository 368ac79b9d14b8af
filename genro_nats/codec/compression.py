"""Compression: a frame's body and buffers as one compressed body; header, name and meta stay as they are.

Done where values are made and read, in callers and children. The body is then::

    0   B    algorithm: 1 zstd, 2 lz4
    1   B    0
    2   H    number of buffers
    4   Q    length of the body as it was
    12       length of each buffer, as in a frame's buffer table
             one zstd or lz4 frame: body and buffers, end to end

Buffers that follow it were added on the way, and come behind those that were compressed.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from genro_nats.codec.assembly import FrameAssembly
from genro_nats.codec.blob import Blob, BlobId, content_of, start
from genro_nats.codec.frame import MAX_BUFFERS, Buffer, Flag, Frame, content_size, size
from genro_nats.errors import CodecError, ConfigurationError, DecodeError, PayloadTooLargeError

__all__ = [
    "ACCEPTING",
    "ACCEPTS",
    "Algorithm",
    "accepted",
    "expand",
    "expands_large",
    "is_large",
    "press",
    "require",
]

Algorithm = Literal["zstd", "lz4"]

ACCEPTS: Final[dict[str, int]] = {"zstd": Flag.ACCEPT_ZSTD, "lz4": Flag.ACCEPT_LZ4}
ACCEPTING: Final = sum(ACCEPTS.values())
MAX_RAW: Final = 4 << 30  # bytes, where nobody states another limit
LEAST: Final = 16 * 1024  # bytes from which on compression is tried
LARGE: Final = 1 << 20  # bytes beyond which it takes milliseconds, too long for an event loop
_NUMBERS: Final = {"zstd": 1, "lz4": 2}
_NAMES: Final = {number: name for name, number in _NUMBERS.items()}
_FIXED: Final = struct.Struct("!BBHQ")
_SAMPLE: Final = 4096  # bytes, at each of three places
_WORTH: Final = 0.9  # of its size that something may take at most to be sent compressed
_PIECE: Final = 1 << 20  # bytes expanded at once
_CAREFUL: Final = 64 << 20  # bytes from which on it is looked whether there is memory for them
_WINDOW_LOG: Final = 23  # 8 MiB: more memory than that no frame of ours needs to be read
_LEVEL: Final = {"zstd": 1, "lz4": 0}


def require(algorithm: str) -> None:
    """Raises ConfigurationError, which names the extra, where an algorithm is not installed."""
    try:
        _module(algorithm)
    except ImportError as error:
        raise ConfigurationError(
            f'compression="{algorithm}" needs an extra: pip install "genro-nats[{algorithm}]"',
            option="compression",
        ) from error


def _module(algorithm: str) -> Any:
    """Raises ImportError."""
    if algorithm == "lz4":
        return importlib.import_module("lz4.frame")
    try:
        return importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        return importlib.import_module("backports.zstd")


def accepted(flags: int) -> str | None:
    """The algorithm that the sender of a call with these flags reads, if it is installed here."""
    for name, flag in ACCEPTS.items():
        if flags & flag:
            try:
                _module(name)
            except ImportError:
                continue
            return name
    return None


def is_large(frame: Frame) -> bool:
    """Does it take long to compress?"""
    return content_size(frame) > LARGE


def expands_large(frame: Frame) -> bool:
    """Does it take long to expand, by what it says itself?"""
    if not frame.flags & Flag.COMPRESSED:
        return False
    try:
        return _parts(frame)[1].size > LARGE
    except DecodeError:
        return False  # it fails at once


def press(frame: Frame, algorithm: str | None) -> Frame:
    """The frame, compressed in place if it is large enough and gets smaller by that."""
    if algorithm is None or frame.flags & Flag.COMPRESSED:
        return frame
    pieces = [frame.body, *frame.buffers]
    total = sum(map(size, pieces))
    if total < LEAST or not _is_worth(pieces, total, algorithm):
        return frame
    packed = _compressed(pieces, algorithm)
    content = content_of(frame)
    fixed = _FIXED.pack(_NUMBERS[algorithm], 0, len(content.table), content.n_body)
    table = struct.pack(f"!{len(content.table)}Q", *content.table)
    if sum(map(len, packed)) > _WORTH * total:
        return frame
    frame.body, frame.buffers = b"".join((fixed, table, *packed)), ()
    frame.flags |= Flag.COMPRESSED
    return frame


def _is_worth(pieces: Sequence[Buffer], total: int, algorithm: str) -> bool:
    """Do three places of the largest piece get smaller? What is compressed or random already does not."""
    view = memoryview(max(pieces, key=size)).cast("B")
    middle = max(0, len(view) // 2 - _SAMPLE // 2)
    places = (view[:_SAMPLE], view[middle : middle + _SAMPLE], view[-_SAMPLE:])
    sample = b"".join(places)
    return sum(map(len, _compressed([sample], algorithm))) <= _WORTH * len(sample)


def _compressed(pieces: Sequence[Buffer], algorithm: str) -> list[bytes]:
    module = _module(algorithm)
    if algorithm == "zstd":
        compressor = module.ZstdCompressor(level=_LEVEL["zstd"])
        return [*(compressor.compress(memoryview(piece).cast("B")) for piece in pieces), compressor.flush()]
    compressor = module.LZ4FrameCompressor(compression_level=_LEVEL["lz4"])
    begin = compressor.begin()
    middle = [compressor.compress(memoryview(piece).cast("B")) for piece in pieces if size(piece)]
    return [begin, *middle, compressor.flush()]


def expand(frame: Frame, limit: int = MAX_RAW) -> Frame:
    """The frame as it was before ``press``; nothing is laid out in advance, whatever it says of its size.

    Raises:
        PayloadTooLargeError: more than ``limit`` bytes, or than there is memory for.
        DecodeError: not what it says.
        CodecError: compressed by what is not installed here; the text names the extra.
    """
    if not frame.flags & Flag.COMPRESSED:
        return frame
    name, blob, data = _parts(frame)
    _check_size(blob.size, limit)
    plain = Frame(frame.kind, frame.id)
    before = start(plain, blob)
    assembly = FrameAssembly(len(before) + blob.size)
    assembly.write(memoryview(before))
    _expand(_decompressor(name), data, blob.size, assembly)
    found = assembly.frame()
    frame.body, frame.buffers = found.body, [*found.buffers, *frame.buffers]
    frame.flags &= ~Flag.COMPRESSED
    return frame


def _parts(frame: Frame) -> tuple[str, Blob, memoryview]:
    body = memoryview(frame.body)
    if len(body) < _FIXED.size:
        raise DecodeError("A compressed frame that is cut short.", id=frame.id)
    number, zero, n_buffers, n_body = _FIXED.unpack_from(body)
    at = _FIXED.size + 8 * n_buffers
    if number not in _NAMES or zero or n_buffers > MAX_BUFFERS or at > len(body):
        raise DecodeError("A compressed frame by no algorithm that is known here.", id=frame.id)
    table = struct.unpack_from(f"!{n_buffers}Q", body, _FIXED.size)
    return _NAMES[number], Blob(BlobId("=", b""), 1, b"", n_body, table), body[at:]


def _check_size(total: int, limit: int) -> None:
    if total > limit:
        raise PayloadTooLargeError(
            f"A compressed frame of {total:,} bytes; {limit:,} is the most (max_payload_size).",
            size=total,
            limit=limit,
        )
    if total > _CAREFUL and total > (free := _free_memory()):
        raise PayloadTooLargeError(
            f"A compressed frame of {total:,} bytes; there is memory for {free:,} here.",
            size=total,
            limit=free,
        )


def _free_memory() -> int:
    """Bytes that can be had without swapping; no limit where that is not told."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else MAX_RAW * 1024


def _decompressor(name: str) -> Any:
    try:
        module = _module(name)
    except ImportError as error:
        raise CodecError(
            f'What came is compressed by {name}, which is not installed here: pip install "genro-nats[{name}]", '
            "or use another compression= in the pool that sends it."
        ) from error
    if name == "lz4":
        return module.LZ4FrameDecompressor()
    return module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: _WINDOW_LOG})


def _expand(decompressor: Any, data: memoryview, total: int, assembly: FrameAssembly) -> None:
    missing = total
    try:
        piece = decompressor.decompress(data, max_length=max(1, min(_PIECE, missing)))
        while piece:
            missing -= len(piece)
            if missing < 0:
                raise DecodeError(
                    f"A compressed frame that holds more than the {total:,} bytes it speaks of."
                )
            assembly.write(memoryview(piece))
            piece = (
                b"" if decompressor.eof else decompressor.decompress(b"", max_length=min(_PIECE, missing + 1))
            )
        ended = decompressor.eof
        left = decompressor.unused_data
    except DecodeError:
        raise
    except Exception as error:  # each library has errors of its own
        raise DecodeError(f"A compressed frame that can't be expanded: {error}") from error
    if missing or not ended:
        raise DecodeError(f"A compressed frame that ends after {total - missing:,} of {total:,} bytes.")
    if left:
        raise DecodeError(f"A compressed frame with {len(left):,} bytes behind its end.")
