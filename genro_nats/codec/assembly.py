"""A frame put together from pieces, each byte copied once to its final place.

The caller's side of a large result: a buffer that was bytes arrives as bytes,
any other as writable memory of its own. Nothing is laid out in advance, so a
frame that lies about its size takes no more memory than has come.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from genro_nats.codec.frame import (
    HEADER_SIZE,
    MAX_BUFFERS,
    MAX_META,
    MAX_NAME,
    READ_ONLY,
    Buffer,
    Frame,
    decode,
)
from genro_nats.errors import DecodeError

__all__ = ["FrameAssembly"]


class FrameAssembly:
    """Takes a frame of ``size`` bytes in pieces; ``frame()`` once it is complete."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._frame: Frame | None = None
        self._fields = self._layout()
        self._field: _AnyField | None = next(self._fields)

    def write(self, piece: memoryview) -> None:
        """The next bytes. Raises DecodeError when they can't belong to such a frame."""
        at = 0
        while at < len(piece):
            field = self._field
            if field is None:
                raise DecodeError(f"A frame of {self._size} bytes, and more bytes behind it.")
            end = at + field.missing
            field.write(piece[at:end])
            field.missing -= min(end, len(piece)) - at
            at = end
            while self._field is not None and not self._field.missing:
                self._field = next(self._fields, None)

    def frame(self) -> Frame:
        """The frame, once all of it has been written. Raises DecodeError before that."""
        if self._frame is None:
            raise DecodeError(f"A frame of {self._size} bytes that is cut short.")
        return self._frame

    def _layout(self) -> Iterator[_AnyField]:
        """The fields of the frame, one after the other; each is filled before the next is asked for."""
        header = _Field(HEADER_SIZE)
        yield header
        start = header.bytes()
        n_name, n_meta, n_buffers = struct.unpack_from("!HIH", start, 6)
        (n_body,) = struct.unpack_from("!Q", start, 24)
        if n_name > MAX_NAME or n_meta > MAX_META or n_buffers > MAX_BUFFERS:
            raise DecodeError(f"A frame over its limits: name {n_name}, meta {n_meta}, buffers {n_buffers}.")
        rest = _Field(n_name + 8 * n_buffers + n_meta)
        if HEADER_SIZE + rest.size > self._size:
            raise DecodeError(f"A frame of {self._size} bytes whose header speaks of more.")
        yield rest
        table = struct.unpack_from(f"!{n_buffers}Q", rest.bytes(), n_name)
        end = HEADER_SIZE + rest.size + n_body + sum(entry & ~READ_ONLY for entry in table)
        if end != self._size:
            raise DecodeError(f"A frame of {self._size} bytes whose header speaks of {end}.")
        body = _Field(n_body)
        yield body
        found: list[Buffer] = []
        for entry in table:
            field = _Field(entry & ~READ_ONLY) if entry & READ_ONLY else _WritableField(entry)
            yield field
            found.append(field.bytes() if isinstance(field, _Field) else field.memory)
        frame = _decoded(start, rest.bytes(), body.bytes(), n_name, n_meta)
        frame.buffers = found
        self._frame = frame


class _Field:
    """Memory for so many bytes, which grows as they come and is not copied when it is taken."""

    def __init__(self, size: int) -> None:
        self.size = self.missing = size
        self._memory = io.BytesIO()
        self.write = self._memory.write

    def bytes(self) -> bytes:
        return self._memory.getvalue()


class _WritableField:
    """As ``_Field``, for memory that its receiver may write to; a bytearray that was sent is this very one."""

    def __init__(self, size: int) -> None:
        self.size = self.missing = size
        self.memory = bytearray()

    def write(self, piece: memoryview) -> None:
        self.memory += piece


_AnyField = _Field | _WritableField


def _decoded(start: bytes, rest: bytes, body: bytes, n_name: int, n_meta: int) -> Frame:
    """The frame without its buffers. Raises DecodeError for another protocol or version."""
    header = start[:12] + bytes(2) + start[14:24] + bytes(8) + start[32:]
    name, meta = rest[:n_name], rest[len(rest) - n_meta :] if n_meta else b""
    frame, _ = decode(header + name + meta)
    frame.body = body
    return frame
