"""Stored payloads: put into a stream in chunks, read again, dropped.

They take the connection of large payloads, so that leases and small messages don't wait behind them.
Before its chunks each has a *head*, a small message that names the subjects which may refer to it:
who looks for what a crash left behind reads only those (``tasks/orphans.py``). Repeating any step is
safe: a subject keeps its last message only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from genro_nats.codec.blob import MIN_CHUNK, Blob, BlobId, Content
from genro_nats.codec.frame import Buffer
from genro_nats.errors import (
    DecodeError,
    ExecutorError,
    PayloadLostError,
    SequenceConflictError,
    StreamError,
    StreamUnavailableError,
)
from genro_nats.transport.direct import StoredMessage, get_last
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.subjects import TaskSubjects, api_inbox
from genro_nats.transport.transfer.puller import Sink
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["Blobs", "Head", "chunks_of"]

_CHUNK: Final = 512 * 1024  # bytes
_HEADERS: Final = 1024  # bytes left for headers and a signature
_WINDOW: Final = 8  # chunks on their way at the same time, in each direction
_AHEAD: Final = 2  # of them when reading begins: more as long as they come quickly, fewer over a slow link
_QUICK: Final = 0.5  # seconds from asking for a chunk to having it
_MISSED: Final = (0.02, 0.1, 0.3, 0.6)  # seconds until a chunk is asked for again: a replica may be behind
_ERASED: Final = 1.0  # seconds that the empty messages stay which take the place of chunks
_UPDATES: Final = 10  # attempts to change a head
_RENEWALS: Final = 4  # of a head, per orphan_ttl: an upload may take long


class Head(NamedTuple):
    """What stands before a payload's chunks. ``time``: when it was stored, RFC 3339, the server's clock."""

    id: BlobId
    owners: tuple[str, ...]
    seq: int
    time: str


class Blobs:
    """The stored payloads of one pool. ``transfer()`` is asked when the first one comes.

    ``who``: a name of this side. ``orphan_ttl``: as in the options.
    """

    def __init__(
        self,
        subjects: TaskSubjects,
        transfer: Callable[[], Transfer],
        prefix: str,
        who: str,
        orphan_ttl: float,
    ) -> None:
        self._subjects = subjects
        self._transfer = transfer
        self._inbox = api_inbox(prefix, f"{who}-{os.urandom(6).hex()}")
        self._orphan_ttl = orphan_ttl
        self._js: JetStream | None = None
        self._erasing: set[asyncio.Task[None]] = set()

    async def open(self) -> JetStream:
        """The API by way of the connection for large payloads. Raises ConnectionLostError."""
        transfer = self._transfer()
        await transfer.open()
        if self._js is None:
            self._js = JetStream(transfer.line.connection, self._inbox)
        await self._js.start()
        return self._js

    async def _publisher(self) -> Publisher:
        return Publisher(await self.open(), self._subjects.blobs_stream)

    async def aclose(self) -> None:
        """Let go of the connection, which stays open. Can be repeated."""
        if self._erasing:
            await asyncio.wait(self._erasing, timeout=1.0)
        for task in self._erasing:
            task.cancel()
        if self._js is not None:
            await self._js.aclose()

    # -- storing --------------------------------------------------------------

    async def put(self, content: Content, user: str, owners: Sequence[str], ttl: float | None = None) -> Blob:
        """Store a payload of ``user``, a token.

        ``owners``: subjects that will refer to it; ``ttl``: seconds, None: until it is dropped.

        Raises:
            StreamError: the stream refused it: it is full, say. Nothing is left of it.
            StreamUnavailableError, ConnectionLostError: the stream stayed away.
        """
        limit = (await self.open()).connection.max_payload
        chunk = max(MIN_CHUNK, min(_CHUNK, limit - min(_HEADERS, limit // 4)))
        blob = Blob(BlobId(user, os.urandom(16)), chunk, b"", content.n_body, content.table)
        try:
            return blob._replace(digest=await self._put(blob, content.pieces, owners, ttl))
        except StreamError as error:
            await self._erase(blob)
            raise StreamError(
                f"{blob.size:,} bytes of a task could not be stored in {self._subjects.blobs_stream}: {error}",
                code=error.code,
                subject=error.subject,
            ) from error
        except BaseException:
            self.erase(blob)
            raise

    async def _put(
        self, blob: Blob, pieces: Sequence[Buffer], owners: Sequence[str], ttl: float | None
    ) -> bytes:
        loop = asyncio.get_running_loop()
        digest = hashlib.sha256()

        def publications() -> Iterator[Publication]:
            for number, data in enumerate(chunks_of(pieces, blob.chunk)):
                digest.update(data)
                yield Publication(self._subjects.blob(blob.id, number), data, msg_id=None, ttl=ttl)

        await self._write_head(blob.id, owners, ttl)
        renewed = loop.time()
        publisher = await self._publisher()
        ack: PubAck | ExecutorError | None = None
        try:
            async with aclosing(publisher.publish_many(publications(), _WINDOW)) as acks:  # type: ignore[type-var]
                async for ack in acks:
                    if isinstance(ack, ExecutorError):
                        raise await publisher.explained(ack)
                    if loop.time() - renewed > self._orphan_ttl / _RENEWALS:
                        await self._write_head(blob.id, owners, ttl)
                        renewed = loop.time()
        finally:
            ack = None  # an error and the frame of its traceback would keep each other, and the payload
        return digest.digest()

    async def _write_head(
        self, id: BlobId, owners: Sequence[str], ttl: float | None = None, expected: int | None = None
    ) -> None:
        publisher = await self._publisher()
        await publisher.publish(
            self._subjects.blob(id, "head"),
            json.dumps(list(owners)).encode(),
            msg_id=None,
            ttl=ttl,
            expected_last_subject_sequence=expected,
        )

    async def own(self, id: BlobId, owners: Sequence[str]) -> None:
        """More subjects will refer to it. Raises PayloadLostError if it is not there."""
        for _ in range(_UPDATES):
            head = await self.head(id)
            if head is None:
                raise _lost(id, None)
            try:
                await self._write_head(id, [*head.owners, *owners], expected=head.seq)
            except SequenceConflictError:
                continue
            return
        raise StreamUnavailableError(f"The head of {id} changes all the time.", subject="")

    # -- reading --------------------------------------------------------------

    async def head(self, id: BlobId) -> Head | None:
        """Who may refer to a payload; None: it is not there."""
        js = await self.open()
        found = await get_last(js, self._subjects.blobs_stream, self._subjects.blob(id, "head"))
        return None if found is None else read_head(found)

    async def get(self, blob: Blob, sink: Sink) -> None:
        """Read a payload into ``sink``, a few chunks ahead, over lost connections.

        Raises:
            PayloadLostError: a chunk is missing.
            DecodeError: a chunk of another length, or content that has not the stated hash.
            StreamUnavailableError, ConnectionLostError: the stream stayed away.
        """
        js = await self.open()
        digest = hashlib.sha256()
        ahead: deque[asyncio.Task[tuple[bytes, float]]] = deque()
        number, window = 0, _AHEAD
        try:
            for at in range(0, blob.size, blob.chunk):
                while len(ahead) < window and number < blob.n_chunks:
                    ahead.append(asyncio.create_task(self._timed_chunk(js, blob, number)))
                    number += 1
                data, seconds = await ahead[0]
                ahead.popleft()
                window = min(_WINDOW, window + 1) if seconds < _QUICK else max(1, window - 1)
                if len(data) != min(blob.chunk, blob.size - at):
                    raise DecodeError(
                        f"A chunk of {len(data):,} bytes at {at:,} of a stored payload of {blob.size:,} "
                        f"in chunks of {blob.chunk:,}."
                    )
                digest.update(data)
                sink.write(memoryview(data))
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
        if digest.digest() != blob.digest:
            raise DecodeError(f"A stored payload of {blob.size:,} bytes that has not the stated hash.")

    async def _timed_chunk(self, js: JetStream, blob: Blob, number: int) -> tuple[bytes, float]:
        begun = time.monotonic()
        return await self._chunk(js, blob, number), time.monotonic() - begun

    async def _chunk(self, js: JetStream, blob: Blob, number: int) -> bytes:
        for pause in (*_MISSED, 0.0):
            found = await get_last(js, self._subjects.blobs_stream, self._subjects.blob(blob.id, number))
            if found is not None and found.data:
                return found.data
            await asyncio.sleep(pause)
        raise _lost(blob.id, number)

    # -- dropping -------------------------------------------------------------

    async def drop(self, id: BlobId) -> None:
        """Remove a payload; needs the right to purge, which callers lack."""
        js = await self.open()
        where = self._subjects.blob(id, ">")
        await js.api(f"STREAM.PURGE.{self._subjects.blobs_stream}", {"filter": where})

    def erase(self, blob: Blob) -> None:
        """Begin to put empty messages in the place of a payload, which soon go: that needs no right to purge."""
        task = asyncio.ensure_future(self._erase(blob))
        self._erasing.add(task)
        task.add_done_callback(self._erased)

    def _erased(self, task: asyncio.Task[None]) -> None:
        self._erasing.discard(task)
        if not task.cancelled():
            task.exception()  # what stays is an orphan, for which workers look

    async def _erase(self, blob: Blob) -> None:
        parts = [*range(blob.n_chunks), "head"]  # as long as there is anything, it can be found by its head
        empty = (Publication(self._subjects.blob(blob.id, part), msg_id=None, ttl=_ERASED) for part in parts)
        publisher = await self._publisher()
        acks = publisher.publish_many(empty)
        async with aclosing(acks):  # type: ignore[type-var]
            refused = [ack async for ack in acks if isinstance(ack, ExecutorError)]
        if refused:  # a full store does not take empty messages either; workers may purge
            with contextlib.suppress(ExecutorError):
                await self.drop(blob.id)


def read_head(message: StoredMessage) -> Head | None:
    """The head in a message; None: it is none."""
    *_, user, number, _part = message.subject.split(".")
    try:
        owners = json.loads(message.data)
        return Head(BlobId.parse(user, number), tuple(map(str, owners)), message.seq, message.time)
    except (ValueError, TypeError, RecursionError):
        return None


def chunks_of(pieces: Sequence[Buffer], size: int) -> Iterator[bytes]:
    """The pieces end to end, cut anew."""
    parts: list[memoryview] = []
    missing = size
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while view:
            parts.append(view[:missing])
            missing -= len(parts[-1])
            view = view[len(parts[-1]) :]
            if not missing:
                yield b"".join(parts)
                parts, missing = [], size
    if parts:
        yield b"".join(parts)


def _lost(id: BlobId, chunk: int | None) -> PayloadLostError:
    what = "" if chunk is None else f"chunk {chunk} of "
    return PayloadLostError(
        f"Of a task's stored payload {what}{id} is not there (any more): it was dropped, or its time is over.",
        blob=str(id),
        chunk=chunk,
    )
