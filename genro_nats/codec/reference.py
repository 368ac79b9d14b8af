"""References: a frame that stands for one too large to travel in a message.

It has the header of the frame it stands for, its name, and the flag REFERRED.
Its body says where the whole frame is to be pulled from::

    0   16s  payload id, random
    16  Q    bytes of the whole frame
    24       the owner's subject
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from genro_nats.codec.frame import HEADER_SIZE, Buffer, Flag, Frame, encode, name_of, peek
from genro_nats.errors import DecodeError

__all__ = ["Reference", "plain_subject", "refer", "referred"]

_FIXED: Final = struct.Struct("!16sQ")
_MAX_SUBJECT: Final = 1024


class Reference(NamedTuple):
    """A payload: its id, its size in bytes, the subject that its owner hears."""

    payload: bytes
    size: int
    owner: str


def refer(start: Buffer, reference: Reference) -> bytes:
    """The frame that stands for the one that begins with ``start`` (its header and name at least)."""
    head = peek(start[:HEADER_SIZE])
    body = _FIXED.pack(reference.payload, reference.size) + reference.owner.encode()
    frame = Frame(head.kind, head.id, name_of(start, head), body=body, hops=head.hops, seconds=head.seconds)
    frame.flags = head.flags | Flag.REFERRED
    return encode(frame)


def referred(body: Buffer) -> Reference:
    """What a frame with the flag REFERRED stands for.

    Raises:
        DecodeError: its body is no reference.
    """
    body = bytes(body[: _FIXED.size + _MAX_SUBJECT + 1])
    subject = body[_FIXED.size :]
    if len(body) <= _FIXED.size or len(subject) > _MAX_SUBJECT or not plain_subject(subject):
        raise DecodeError("A frame that refers to a payload, without a proper reference.")
    payload, size = _FIXED.unpack_from(body)
    if size < HEADER_SIZE:
        raise DecodeError(f"A reference to a payload of {size} bytes, less than a frame has.")
    return Reference(payload, size, subject.decode("ascii"))


def plain_subject(subject: bytes) -> bool:
    """Can it be published to as it is? (No wildcards, no spaces, no empty tokens, nothing of the server's own.)"""
    tokens = subject.split(b".")
    return all(0x20 < c < 0x7F and c not in b"*>" for c in subject) and all(tokens) and subject[:1] != b"$"
