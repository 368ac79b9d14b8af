"""The frame: the one message format of socket pairs, NATS messages and durable tasks.

Layout, big-endian (``docs/wire.md`` has it byte by byte)::

    0   2s  magic b"GN"
    2   B   version (1)
    3   B   kind (FrameKind)
    4   H   flags (Flag)
    6   H   length of name
    8   I   length of meta
    12  H   number of buffers
    14  H   hops: how often a worker passed the call on
    16  d   seconds: a call's time left (inf: no deadline), a reply's run time
    24  Q   length of body
    32  16s call id
    48      name, buffer table (one Q each, top bit: read-only), meta, body, buffers

The length of a frame follows from its header, so frames can be laid end to
end in one message. A worker's parent reads headers only; bodies are opened by
the caller and by the child that runs the call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple

from genro_nats.errors import DecodeError, PayloadTooLargeError

__all__ = [
    "HEADER_SIZE",
    "KINDS",
    "MAX_VALUE_BUFFERS",
    "OUT_OF_BAND",
    "Buffer",
    "Flag",
    "Frame",
    "FrameKind",
    "Head",
    "check",
    "chunks",
    "content_size",
    "decode",
    "decode_all",
    "encode",
    "name_of",
    "passed_on",
    "peek",
    "seconds_field",
    "size",
    "with_seconds",
]

Buffer = bytes | bytearray | memoryview

MAGIC: Final = b"GN"
VERSION: Final = 1
HEADER: Final = struct.Struct("!2sBBHHIHHdQ16s")
HEADER_SIZE: Final = HEADER.size
_HOPS: Final = struct.Struct("!H")
_HOPS_AT: Final = 14
MAX_NAME: Final = 1024
MAX_META: Final = 256 * 1024
MAX_BUFFERS: Final = 4096
MAX_VALUE_BUFFERS: Final = MAX_BUFFERS - 16  # what one value may leave out; a frame may have a few others
OUT_OF_BAND: Final = 64 * 1024  # bytes, as long as pickle's frames; below it a copy is cheaper than a buffer
READ_ONLY: Final = 1 << 63
NO_ID: Final = bytes(16)


class FrameKind:
    """What a frame says. The numbers are the protocol: never reuse one. (Members of an enum are slow to look up.)"""

    CALL = 1
    REPLY = 2  # the value; for a stream: its regular end
    ERROR = 3  # an exception as structure
    CANCEL = 4  # to the worker: end this call
    BEAT = 5  # to the caller: these calls are held here
    PROGRESS = 6
    ITEM = 7  # one item of a stream
    CREDIT = 8  # to the worker: that many more items may be sent
    ACK = 9  # to the worker: these replies have arrived
    QUERY = 10  # to all workers: who holds these calls?
    HELLO = 11  # child to parent: ready for calls
    REFUSED = 12  # the call was not started and never will be here
    SKIPPED = 13  # child to parent: this call had been taken back
    CHECKPOINT = 14  # child to parent: keep this value for the task's next attempt
    FETCH = 15  # to a caller: the worker lacks this function
    FUNCTION = 16  # to the worker, and to its child: a function by value
    WAITING = 17  # between workers of a pool: that many calls wait at the sender
    TAKE = 18  # to a worker that said so: its sender has children for that many
    PULL = 20  # to a payload's owner: send it, from here to there
    GRANT = 21  # to the owner: it may be sent up to there
    CHUNK = 22  # to the puller: a piece of the payload
    GONE = 23  # to the puller: there is no such payload
    DONE = 24  # to the owner: the payload has arrived, or nobody wants it
    LEAVE = 25  # to a worker: finish what you have, and leave


class Flag:
    """Bits of ``Frame.flags``."""

    STREAM = 1  # a call whose function is a generator
    BY_VALUE = 2  # the first buffer is the pickled function
    PROGRESS = 4  # the caller listens to progress
    RETIRE = 8  # a reply of a child that wants to be replaced
    CHECKPOINT = 16  # the last buffer is the pickled checkpoint of an earlier attempt
    TASK = 32  # the call is a task: its checkpoints are kept, its error's meta says how to go on
    NO_QUEUE = 64  # a call that is refused rather than queued; a refusal because no worker had room
    REFERRED = 256  # the body is a reference; the frame itself, or its content, is to be had elsewhere
    COMPRESSED = 512  # body and buffers are one compressed body
    ACCEPT_ZSTD = 1024  # a call whose answers may be compressed by zstd
    ACCEPT_LZ4 = 2048  # a call whose answers may be compressed by lz4
    DATA = 4096  # body, checkpoint and answers are of the data codec, not pickles
    BY_DIGEST = 8192  # the meta begins with the digest of the function, which travels apart


KNOWN_FLAGS: Final = sum(bit for name, bit in vars(Flag).items() if name.isupper())
KINDS: Final[Mapping[int, str]] = MappingProxyType(
    {number: name for name, number in vars(FrameKind).items() if name.isupper()}
)


class Frame:
    """One frame, decoded. ``body`` and ``buffers`` may be views into received bytes."""

    __slots__ = ("body", "buffers", "flags", "hops", "id", "kind", "meta", "name", "seconds")

    def __init__(
        self,
        kind: int,
        id: bytes = NO_ID,
        name: bytes = b"",
        meta: bytes = b"",
        body: Buffer = b"",
        buffers: Sequence[Buffer] = (),
        flags: int = 0,
        hops: int = 0,
        seconds: float = inf,
    ) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.meta = meta
        self.body = body
        self.buffers = buffers
        self.flags = flags
        self.hops = hops
        self.seconds = seconds

    def __repr__(self) -> str:
        kind = KINDS.get(self.kind, self.kind)
        return f"<Frame {kind} {self.id.hex()} {self.name.decode(errors='replace')} body={len(self.body)}>"


def chunks(frame: Frame) -> list[Buffer]:
    """The frame as pieces to be written one after the other; buffers are not copied."""
    buffers = frame.buffers
    body = frame.body
    name = frame.name
    header = HEADER.pack(
        MAGIC,
        VERSION,
        frame.kind,
        frame.flags,
        len(name),
        len(frame.meta),
        len(buffers),
        frame.hops,
        frame.seconds,
        size(body),
        frame.id,
    )
    if not buffers:
        return [header, name, frame.meta, body] if frame.meta else [header, name, body]
    return [header, name, _table(buffers), frame.meta, body, *buffers]


def _table(buffers: Sequence[Buffer]) -> bytes:
    if len(buffers) > MAX_BUFFERS:
        raise PayloadTooLargeError(
            f"A value with {len(buffers)} separate buffers; the limit is {MAX_BUFFERS}. Combine them.",
            size=len(buffers),
            limit=MAX_BUFFERS,
        )
    sizes = [size(b) | (READ_ONLY if isinstance(b, bytes) else 0) for b in buffers]
    return struct.pack(f"!{len(sizes)}Q", *sizes)


def size(buffer: Buffer) -> int:
    """Bytes in a buffer, whatever its item size."""
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def content_size(frame: Frame) -> int:
    """Bytes of a frame's body and buffers."""
    return size(frame.body) + sum(map(size, frame.buffers))


def encode(frame: Frame) -> bytes:
    """The frame as one bytes object."""
    return b"".join(chunks(frame))


def decode(data: Buffer, offset: int = 0) -> tuple[Frame, int]:
    """The frame that begins at ``offset``, and where it ends.

    Raises:
        DecodeError: not a frame, another version, or shorter than it says.
    """
    if len(data) - offset < HEADER_SIZE:
        raise _short(data, offset)
    magic, version, kind, flags, n_name, n_meta, n_buffers, hops, seconds, n_body, call_id = (
        HEADER.unpack_from(data, offset)
    )
    if magic != MAGIC or version != VERSION:
        raise _foreign(magic, version)
    if n_name > MAX_NAME or n_meta > MAX_META or n_buffers > MAX_BUFFERS:
        raise _excessive(n_name, n_meta, n_buffers)
    view = memoryview(data)
    at = offset + HEADER_SIZE
    table_at = at + n_name
    meta_at = table_at + 8 * n_buffers
    body_at = meta_at + n_meta
    end = body_at + n_body
    if end > len(data):
        raise DecodeError(f"A frame cut short: {len(data) - offset} bytes, its header speaks of more.")
    name = bytes(view[at:table_at]) if n_name else b""
    meta = bytes(view[meta_at:body_at]) if n_meta else b""
    frame = Frame(kind, call_id, name, meta, view[body_at:end], (), flags, hops, seconds)
    if n_buffers:
        frame.buffers, end = _buffers(view, struct.unpack_from(f"!{n_buffers}Q", view, table_at), end)
    return frame, end


class Head(NamedTuple):
    """The fixed part of a frame, for those who only pass it on."""

    kind: int
    flags: int
    n_name: int
    n_meta: int
    n_buffers: int
    hops: int
    seconds: float
    n_body: int
    id: bytes


def peek(data: Buffer) -> Head:
    """The header of a frame that this process itself received from its own child or parent."""
    return tuple.__new__(Head, HEADER.unpack_from(data)[2:])  # twice as fast as a call of it


def check(data: Buffer) -> Head:
    """The header of a message that holds exactly one frame, its lengths verified; nothing is copied.

    Raises:
        DecodeError: not a frame, another version, or another length than it says.
    """
    if len(data) < HEADER_SIZE:
        raise _short(data, 0)
    magic, version, *rest = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise _foreign(magic, version)
    head = tuple.__new__(Head, rest)
    if head.n_name > MAX_NAME or head.n_meta > MAX_META or head.n_buffers > MAX_BUFFERS:
        raise _excessive(head.n_name, head.n_meta, head.n_buffers)
    end = HEADER_SIZE + head.n_name + 8 * head.n_buffers + head.n_meta + head.n_body
    if head.n_buffers and end <= len(data):
        table = struct.unpack_from(f"!{head.n_buffers}Q", data, HEADER_SIZE + head.n_name)
        end += sum(entry & ~READ_ONLY for entry in table)
    if end != len(data):
        raise DecodeError(f"A frame of {len(data)} bytes whose header speaks of {end}.", id=head.id)
    return head


def seconds_field(seconds: float) -> tuple[int, bytes]:
    """Where a frame has its seconds, and these as bytes."""
    return HEADER.size - 16 - 8 - 8, struct.pack("!d", seconds)  # before body length and id


def with_seconds(data: bytes, seconds: float) -> bytes:
    """The same frame with another time left."""
    at, field = seconds_field(seconds)
    return data[:at] + field + data[at + 8 :]


def passed_on(data: Buffer, seconds: float) -> bytes:
    """The same frame after one hop more, with another time left."""
    start = bytearray(data[:HEADER_SIZE])
    (hops,) = _HOPS.unpack_from(start, _HOPS_AT)
    _HOPS.pack_into(start, _HOPS_AT, hops + 1)
    at, field = seconds_field(seconds)
    start[at : at + 8] = field
    return b"".join((start, memoryview(data)[HEADER_SIZE:]))


def name_of(data: Buffer, head: Head) -> bytes:
    """The function's name in a frame whose header was read."""
    return bytes(data[HEADER_SIZE : HEADER_SIZE + head.n_name])


def _short(data: Buffer, offset: int) -> DecodeError:
    return DecodeError(f"A frame cut short: {len(data) - offset} bytes, a header has {HEADER_SIZE}.")


def _foreign(magic: bytes, version: int) -> DecodeError:
    if magic != MAGIC:
        return DecodeError("Not a genro-nats frame: it does not begin with b'GN'.")
    return DecodeError(
        f"A frame of protocol version {version}; this side speaks version {VERSION}. "
        "Bring caller and worker to the same release of genro-nats.",
        version=version,
    )


def _excessive(n_name: int, n_meta: int, n_buffers: int) -> DecodeError:
    return DecodeError(f"A frame over its limits: name {n_name}, meta {n_meta}, buffers {n_buffers}.")


def _buffers(view: memoryview, table: tuple[int, ...], at: int) -> tuple[list[Buffer], int]:
    """Views of the buffers laid out from ``at``; a read-only one shows in its type (bytes)."""
    found: list[Buffer] = []
    for entry in table:
        end = at + (entry & ~READ_ONLY)
        if end > len(view):
            raise DecodeError("A frame cut short: its buffer table speaks of more bytes than came.")
        part = view[at:end]
        found.append(bytes(part) if entry & READ_ONLY else _writable(part))
        at = end
    return found, at


def _writable(part: memoryview) -> Buffer:
    # What arrived in a bytearray of its own is already private to the receiver.
    return bytearray(part) if part.readonly else part


def decode_all(data: Buffer) -> Iterator[Frame]:
    """The frames laid end to end in ``data``.

    Raises:
        DecodeError: at the first piece that is not a frame.
    """
    at, end = 0, len(data)
    while at < end:
        frame, at = decode(data, at)
        yield frame
