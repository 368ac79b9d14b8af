"""What of a pool's tasks is too large for a message: put on a shelf, with a reference in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from genro_nats.codec.assembly import FrameAssembly
from genro_nats.codec.blob import (
    Blob,
    BlobId,
    Content,
    blob_in,
    content_in,
    content_of,
    is_referred,
    refer,
    start,
)
from genro_nats.codec.compression import expand
from genro_nats.codec.frame import Buffer, Frame, decode
from genro_nats.config import PoolOptions
from genro_nats.errors import PayloadTooLargeError
from genro_nats.transport.apart import expand_apart
from genro_nats.transport.blobs import Blobs
from genro_nats.transport.identity import identity
from genro_nats.transport.nats import Connection
from genro_nats.transport.subjects import NONE, TaskSubjects
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["Shelf"]

_ROOM: Final = 16 << 10  # bytes left in a message: for headers, a record, and the facts of a dead letter
LATER: Final = 600.0  # seconds by which a payload outlives what refers to it


class Shelf:
    """Decides what is large, stores it, gives it back. ``transfer``, ``who``: as of ``Blobs``."""

    def __init__(
        self,
        connection: Connection,
        subjects: TaskSubjects,
        options: PoolOptions,
        transfer: Callable[[], Transfer],
        who: str,
    ) -> None:
        self._connection = connection
        self._inline_limit = options.inline_limit
        self._size_limit = options.max_payload_size
        self.user: Final = identity(options) or NONE  # whose arguments are that are stored here
        named = f"{self.user}.{who}"
        self.blobs = Blobs(subjects, transfer, options.prefix, named, options.orphan_ttl)

    async def aclose(self) -> None:
        """Let go."""
        await self.blobs.aclose()

    def fits(self, size: int) -> bool:
        """May a frame of so many bytes go into a message?"""
        limit = self._connection.max_payload
        return size <= self._inline_limit and size <= limit - min(_ROOM, limit // 4)

    async def put(
        self, frame: Frame | Buffer, user: str, owners: Sequence[str], ttl: float | None = None
    ) -> tuple[bytes, Blob]:
        """Store a frame's body and buffers; the frame that stands for it, and what was stored.

        ``user``: whose it is, a token. ``owners``: subjects where that frame will be. ``ttl``: seconds that
        it will be there at most.

        Raises:
            PayloadTooLargeError: over ``max_payload_size``.
            StreamError, StreamUnavailableError, ConnectionLostError: as ``Blobs.put``.
        """
        content = content_of(frame) if isinstance(frame, Frame) else content_in(frame)
        blob = await self.blobs.put(
            self._checked(content), user, owners, None if ttl is None else ttl + LATER
        )
        return refer(content.head, blob), blob

    def _checked(self, content: Content) -> Content:
        self.check(Blob(BlobId(NONE, b""), 1, b"", content.n_body, content.table).size, "A task's payload")
        return content

    def check(self, size: int, what: str) -> None:
        """Raises PayloadTooLargeError for more than ``max_payload_size``."""
        if size > self._size_limit:
            raise PayloadTooLargeError(
                f"{what} of {size:,} bytes; {self._size_limit:,} is the most (max_payload_size).",
                size=size,
                limit=self._size_limit,
            )

    async def frame(self, data: Buffer) -> Frame:
        """The frame that was stored, wherever its content is, expanded.

        Raises:
            CodecError, PayloadLostError: it can't be had, or not be read.
            StreamUnavailableError, ConnectionLostError: the stream stayed away.
        """
        if not is_referred(data):
            return await expand_apart(decode(data)[0], self._size_limit)
        head, blob = blob_in(data)
        self.check(blob.size, "A stored payload")
        before = start(head, blob)
        assembly = FrameAssembly(len(before) + blob.size)
        assembly.write(memoryview(before))
        await self.blobs.get(blob, assembly)
        return await expand_apart(assembly.frame(), self._size_limit)

    def expanded(self, frame: Frame) -> Frame:
        """A frame as it was before it was compressed. Raises CodecError."""
        return expand(frame, self._size_limit)
