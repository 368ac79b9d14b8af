"""Calls whose arguments stayed with their caller: pulled into shared memory, then run."""

from __future__ import annotations

import asyncio
import io
from math import inf

from genro_nats.codec.frame import Buffer, Flag, Head, check, decode, name_of, seconds_field
from genro_nats.codec.reference import Reference, referred
from genro_nats.errors import DecodeError, PayloadTooLargeError
from genro_nats.transport import shared
from genro_nats.transport.pipe import Parts
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["new_room", "pull_call", "reference_in", "require_size", "room_for"]


def room_for(size: int, taken: int, limit: int) -> bool:
    """May a call of ``size`` bytes be taken beside ``taken`` bytes? One alone always may."""
    return taken == 0 or taken + size <= limit


def reference_in(data: Buffer, limit: int) -> Reference:
    """What a call refers to.

    Raises:
        DecodeError: it holds no proper reference.
        PayloadTooLargeError: to more bytes than ``max_payload_size``, here ``limit``.
    """
    reference = referred(decode(data)[0].body)
    require_size(reference.size, limit)
    return reference


def require_size(size: int, limit: int) -> None:
    """Raises PayloadTooLargeError for a call of more than ``max_payload_size``, here ``limit``."""
    if size > limit:
        raise PayloadTooLargeError(
            f"A call of {size:,} bytes; this worker takes {limit:,} (max_payload_size).",
            size=size,
            limit=limit,
        )


async def pull_call(transfer: Transfer, reference: Reference, announced: bytes, deadline: float) -> Parts:
    """The call that ``announced`` stands for, ready for a child; ``deadline`` is event loop time.

    Raises:
        TimeoutError: at the deadline.
        ConnectionLostError, DecodeError: it could not be pulled, or is another call.
    """
    sink = new_room()
    async with asyncio.timeout_at(None if deadline == inf else deadline):
        await transfer.pull(reference, sink)
    _compare(sink.view(), announced)
    if deadline != inf:
        sink.put(*seconds_field(deadline - asyncio.get_running_loop().time()))
    return sink.parts()


def new_room() -> _Room:
    """Where a payload goes that children are to be given. Raises OSError."""
    return _Shared() if shared.available() else _Plain()


def _compare(data: Buffer, announced: bytes) -> None:
    """Is it the call that was announced? What the parent was told by its header must be true."""
    head, told = check(data), check(announced)
    if _identity(head, data) != _identity(told, announced):
        raise DecodeError("A call that is not the one which was announced.", id=told.id)


def _identity(head: Head, data: Buffer) -> tuple[int, bytes, int, bytes]:
    return head.kind, head.id, head.flags & ~Flag.REFERRED, name_of(data, head)


class _Shared(shared.StoredFrame):
    def parts(self) -> Parts:
        return self


class _Plain:
    """Memory of this process, where there is no shared memory."""

    def __init__(self) -> None:
        self._memory = io.BytesIO()

    def write(self, piece: memoryview) -> None:
        self._memory.write(piece)

    def put(self, at: int, data: bytes) -> None:
        self._memory.getbuffer()[at : at + len(data)] = data

    def view(self) -> memoryview:
        return self._memory.getbuffer()

    def parts(self) -> Parts:
        return [self._memory.getbuffer()]


_Room = _Shared | _Plain
