"""The connection of its own that large payloads take, opened when the first one comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from genro_nats.codec.frame import HEADER_SIZE, Buffer, Frame, FrameKind, check, decode, encode, peek
from genro_nats.codec.reference import plain_subject
from genro_nats.codec.signing import MAGIC, Flaw
from genro_nats.errors import DecodeError, ExecutorError
from genro_nats.transport.abandoned import drop_task
from genro_nats.transport.address import Address
from genro_nats.transport.guard import Guard
from genro_nats.transport.nats import Connection, Message, Subscription
from genro_nats.transport.reader import Feed, Taker
from genro_nats.transport.subjects import bulk_inbox
from genro_nats.transport.transfer.credit import chunk_size
from genro_nats.transport.transfer.raw import limit_unsent
from genro_nats.transport.transfer.sealed import Unsealing

__all__ = ["Line"]

log: Final = logging.getLogger("genro_nats.transport")

_MAX_WORD: Final = 4096  # bytes of a frame that is no chunk
_UNSENT: Final = 128 * 1024  # bytes that the system holds back: what is behind them waits long on a slow line

Chunk = Callable[[bytes, int, int], Feed | None]


class Line:
    """Sends and hears transfer frames.

    ``on_frame`` gets every frame but chunks; ``on_chunk(pull, offset, length)`` gives
    what takes a chunk's bytes, or None; ``on_absent(pull)`` is told that nobody heard
    that pull's question; ``on_flawed(pull, flaw)`` of what came for it and was refused.
    """

    def __init__(
        self, address: Address, name: str, prefix: str, connect_timeout: float, peer: str, guard: Guard
    ) -> None:
        self._guard = guard
        self.connection = Connection(address, name, connect_timeout=connect_timeout, guard=guard)
        self._inbox = bulk_inbox(prefix, peer)
        self._peers = bulk_inbox(prefix, "").rstrip(".") + "."
        self.owner_subject = self._inbox + "owner"
        self.on_frame: Callable[[Frame], None]
        self.on_chunk: Chunk
        self.on_absent: Callable[[bytes], None]
        self.on_flawed: Callable[[bytes, Flaw], None]
        self._opening: asyncio.Task[None] | None = None
        self._hearing: Subscription | None = None
        self._posts: set[asyncio.Task[None]] = set()
        self.connection.on_up.append(self._up)

    def is_peer(self, subject: str) -> bool:
        """Is it where an owner or puller of this prefix hears? Nothing else is ever sent to."""
        return subject.startswith(self._peers) and plain_subject(subject.encode())

    @property
    def online(self) -> bool:
        """Is there a connection now?"""
        return self.connection.connected

    @property
    def opened(self) -> bool:
        """Has it been opened?"""
        return self._opening is not None and self._opening.done() and not self._opening.cancelled()

    @property
    def chunk(self) -> int:
        """Bytes of payload in one message."""
        return chunk_size(self.connection.max_payload, HEADER_SIZE)

    async def open(self) -> None:
        """Connect, unless that was done. Raises ConnectionLostError, PermissionDeniedError."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except ExecutorError:
            if self._opening is opening:
                self._opening = None  # the next payload tries again
            raise

    async def _open(self) -> None:
        if self._hearing is None:
            await self.connection.start()
            self._up()
            taker: Taker = self._take
            if self._guard.keyed:
                taker = Unsealing(self._guard, self._inbox, self._take, self.on_flawed)
            self._hearing = await self.connection.subscribe(self._inbox + "*", self._received, taker=taker)
        await self.connection.flush()
        self.connection.denials.require(self._inbox + "*")

    def _up(self) -> None:
        client = self.connection._client
        if client is not None:
            limit_unsent(client, _UNSENT)

    async def aclose(self) -> None:
        """Leave the server, if it was ever reached."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._posts:
            await asyncio.wait(self._posts, timeout=0.5)
        for post in self._posts:
            post.cancel()
        await self.connection.aclose()

    def abandon(self) -> None:
        """As ``Connection.abandon``."""
        for task in [*self._posts, *([self._opening] if self._opening else [])]:
            if not task.done():
                drop_task(task)
        self.connection.abandon()

    def post(self, subject: str, frame: Frame, pull: bytes = b"") -> None:
        """Send a frame soon; lost where there is no connection. ``pull``: who wants to know if nobody hears."""
        task = asyncio.get_running_loop().create_task(self._post(subject, encode(frame), pull))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _post(self, subject: str, data: bytes, pull: bytes) -> None:
        try:
            await self.connection.publish(subject, data, self._inbox + pull.hex() if pull else "")
        except ExecutorError as error:
            log.debug("a word about a payload could not be sent: %s", error)

    async def send(
        self, subject: str, pull: bytes, offset: int, pieces: Sequence[Buffer], length: int
    ) -> None:
        """Send a chunk. Raises ConnectionLostError."""
        header = Frame(FrameKind.CHUNK, pull, seconds=float(offset))
        await self.connection.send_pieces(subject, [_chunk_header(header, length), *pieces])

    def pull_subject(self, pull: bytes) -> str:
        """Where the chunks of a pull are to be sent."""
        return self._inbox + pull.hex()

    def peer_of(self, subject: str) -> str:
        """Where who pulls on ``subject`` hears of other things than chunks."""
        return subject.rpartition(".")[0] + "." + self.owner_subject.rpartition(".")[2]

    def _received(self, message: Message) -> None:
        """The server's own word: nobody heard a question."""
        with contextlib.suppress(ValueError):  # who else may publish here, on subjects that name no pull
            if message.status:
                self.on_absent(bytes.fromhex(message.subject.rpartition(".")[2]))

    def _take(self, start: bytes, length: int) -> Feed | None:
        """A message begins."""
        if len(start) < HEADER_SIZE:
            self._unreadable(length)
            return None
        if start[:4] == MAGIC:  # this side has no key: who pulls hears it from the messages of its calls
            return None
        head = peek(start)
        if head.kind != FrameKind.CHUNK:
            return self._collect(start, length)
        body = length - HEADER_SIZE
        if start[:3] != encode(Frame(0))[:3] or head.n_body != body or not 0 <= head.seconds < 2**53:
            self._unreadable(length)
            return None
        return self.on_chunk(head.id, int(head.seconds), body)

    def _unreadable(self, length: int) -> None:
        if self._guard.keyed:
            return  # it is verified yet, and counted if it is somebody else's
        self._guard.unreadable(self._inbox, f"{length:,} bytes that are no frame about a payload")

    def _collect(self, start: bytes, length: int) -> Feed | None:
        if length > _MAX_WORD:
            self._unreadable(length)
            return None
        collected = bytearray(start)

        def feed(piece: memoryview) -> None:
            collected.extend(piece)
            if len(collected) == length:
                self._handle(bytes(collected))

        if length == len(start):
            self._handle(start)
            return None
        return feed

    def _handle(self, data: bytes) -> None:
        try:
            check(data)
            self.on_frame(decode(data)[0])
        except DecodeError as error:
            self._guard.unreadable(self._inbox, error)


def _chunk_header(frame: Frame, length: int) -> bytes:
    """The header of a frame whose body follows by itself."""
    header = bytearray(encode(frame))
    header[24:32] = length.to_bytes(8, "big")
    return bytes(header)
