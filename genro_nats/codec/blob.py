"""Frames whose body and buffers are stored elsewhere: what a durable task's message carries in their place.

Such a frame keeps its header, name and meta, so that who passes it on can read them, and has the
flag REFERRED. Its body says what belongs behind them::

    0   8s   the user whose it is: 8 hex digits, or "=" and zeros for nobody's
    8   16s  its random number
    24  I    bytes of a chunk; the last one may be shorter
    28  32s  SHA-256 of body and buffers, end to end
    60  Q    length of the body
    68  H    number of buffers
    70       length of each, as in a frame's buffer table
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from genro_nats.codec.frame import (
    HEADER,
    HEADER_SIZE,
    MAGIC,
    MAX_BUFFERS,
    READ_ONLY,
    VERSION,
    Buffer,
    Flag,
    Frame,
    check,
    decode,
    encode,
    name_of,
    size,
)
from genro_nats.errors import DecodeError

__all__ = [
    "MIN_CHUNK",
    "Blob",
    "BlobId",
    "Content",
    "blob_id",
    "blob_in",
    "content_in",
    "content_of",
    "is_referred",
    "refer",
    "start",
]

_FIXED: Final = struct.Struct("!8s16sI32sQH")
_USER: Final = re.compile(r"[0-9a-f]{8}|=")  # a token of subjects: nothing else may become one
_NUMBER: Final = re.compile(r"[0-9a-f]{32}")
MIN_CHUNK: Final = 256  # bytes; smaller ones would be a way to make a reader ask without end


class BlobId(NamedTuple):
    """Which stored payload. ``user``: whose it is, as in subjects, so that a server can keep users apart."""

    user: str
    number: bytes

    def __str__(self) -> str:
        return f"{self.user}.{self.number.hex()}"

    @classmethod
    def parse(cls, user: str, digits: str) -> BlobId:
        """The id that two tokens of a subject are. Raises ValueError."""
        if not _USER.fullmatch(user) or not _NUMBER.fullmatch(digits):
            raise ValueError(f"{user!r}, {digits!r}: no id of a stored payload")
        return cls(user, bytes.fromhex(digits))


class Blob(NamedTuple):
    """A stored body with its buffers. ``table``: their lengths, as in a frame."""

    id: BlobId
    chunk: int
    digest: bytes
    n_body: int
    table: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of body and buffers."""
        return self.n_body + sum(entry & ~READ_ONLY for entry in self.table)

    @property
    def n_chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.size // self.chunk)

    def pack(self) -> bytes:
        """As a frame's body."""
        user, number = self.id
        fixed = _FIXED.pack(user.encode(), number, self.chunk, self.digest, self.n_body, len(self.table))
        return fixed + struct.pack(f"!{len(self.table)}Q", *self.table)


class Content(NamedTuple):
    """A frame's head, and apart from it what is behind: the pieces of its body and buffers."""

    head: Frame
    n_body: int
    table: tuple[int, ...]
    pieces: Sequence[Buffer]


def content_of(frame: Frame) -> Content:
    """A frame taken apart; nothing is copied."""
    table = tuple(size(b) | (READ_ONLY if isinstance(b, bytes) else 0) for b in frame.buffers)
    return Content(_headed(frame), size(frame.body), table, [frame.body, *frame.buffers])


def content_in(data: Buffer) -> Content:
    """An encoded frame taken apart; nothing is copied. Raises DecodeError."""
    head = check(data)
    view = memoryview(data)
    at = HEADER_SIZE + head.n_name
    body_at = at + 8 * head.n_buffers + head.n_meta
    table = struct.unpack_from(f"!{head.n_buffers}Q", data, at)
    frame = Frame(
        head.kind, head.id, name_of(data, head), flags=head.flags, hops=head.hops, seconds=head.seconds
    )
    frame.meta = bytes(view[body_at - head.n_meta : body_at])
    return Content(frame, head.n_body, table, [view[body_at:]])


def _headed(frame: Frame) -> Frame:
    return Frame(
        frame.kind,
        frame.id,
        frame.name,
        frame.meta,
        flags=frame.flags,
        hops=frame.hops,
        seconds=frame.seconds,
    )


def refer(head: Frame, blob: Blob) -> bytes:
    """The frame that stands for the one whose content is stored."""
    frame = _headed(head)
    frame.flags |= Flag.REFERRED
    frame.body = blob.pack()
    return encode(frame)


def is_referred(data: Buffer) -> bool:
    """Does a frame begin here whose content is stored elsewhere?"""
    if len(data) < HEADER_SIZE or data[:2] != MAGIC:
        return False
    (flags,) = struct.unpack_from("!H", data, 4)
    return bool(flags & Flag.REFERRED)


def blob_in(data: Buffer) -> tuple[Frame, Blob]:
    """A frame with the flag REFERRED, and what it stands for.

    Raises:
        DecodeError: it is none, or holds no proper reference.
    """
    frame, _ = decode(data)
    body = frame.body
    if not frame.flags & Flag.REFERRED or size(body) < _FIXED.size:
        raise DecodeError("A frame that refers to a stored payload, without a proper reference.")
    whose, number, chunk, digest, n_body, n_buffers = _FIXED.unpack_from(body)
    if n_buffers > MAX_BUFFERS or size(body) != _FIXED.size + 8 * n_buffers or chunk < MIN_CHUNK:
        raise DecodeError("A frame that refers to a stored payload by a reference that can't be.")
    table = struct.unpack_from(f"!{n_buffers}Q", body, _FIXED.size)
    return frame, Blob(BlobId(_user(whose), number), chunk, digest, n_body, table)


def _user(field: bytes) -> str:
    """The token in a reference's field. Raises DecodeError."""
    user = field.rstrip(b"\0").decode("latin-1")
    if not _USER.fullmatch(user):
        raise DecodeError("A frame that refers to a stored payload of a user that can't be.")
    return user


def blob_id(data: Buffer) -> BlobId:
    """The id of what a frame with the flag REFERRED stands for. Raises DecodeError."""
    return blob_in(data)[1].id


def start(frame: Frame, blob: Blob, more: Sequence[Buffer] = ()) -> bytes:
    """What comes before the stored content, to make it the whole frame again; ``more`` buffers come behind it."""
    table = (*blob.table, *(size(b) | READ_ONLY for b in more))
    header = HEADER.pack(
        MAGIC,
        VERSION,
        frame.kind,
        frame.flags & ~Flag.REFERRED,
        len(frame.name),
        len(frame.meta),
        len(table),
        frame.hops,
        frame.seconds,
        blob.n_body,
        frame.id,
    )
    return b"".join((header, frame.name, struct.pack(f"!{len(table)}Q", *table), frame.meta))
