"""How messages leave: at once, with others of this turn of the loop, or in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from itertools import repeat
from typing import Final

from nats.errors import Error as NatsError

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConnectionLostError, PayloadTooLargeError
from genro_nats.transport.client import DirectClient
from genro_nats.transport.guard import Guard
from genro_nats.transport.headers import header_block, header_size
from genro_nats.transport.transfer.raw import send, write_pending

__all__ = ["Sender", "When"]

_END: Final = b"\r\n"
_TURNS: Final = 3  # of the event loop
_AT_ONCE: Final = 1 << 20  # bytes pending below which nats-py takes a message without waiting
_MAX_SUBJECTS: Final = 2048  # characters; a server takes 4096 bytes for a command


class When(Enum):
    """How long a message may wait for others that go in the same write; many small ones keep two machines busy.

    ``NOW``: not at all, it is the only one. ``SOON``: for those of this turn of the event loop.
    ``LATER``: for those of the next few turns. ``HELD``: until its sender says ``write_held``.
    """

    NOW = auto()
    SOON = auto()
    LATER = auto()
    HELD = auto()


_NOW: Final = When.NOW  # members of an enum are slow to look up
_LATER: Final = When.LATER
_HELD: Final = When.HELD


class Sender:
    """Publishes by the client that is there now; the sending half of a ``Connection``."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._client: DirectClient | None = None
        self._loop: asyncio.AbstractEventLoop
        self._writing: asyncio.Handle | None = None
        self._held: list[tuple[str, Buffer, str, bytes]] = []  # subject, data, reply subject, header block
        self._held_size = 0
        self.shown = ""
        self.max_payload = 1 << 20

    async def publish(
        self, subject: str, data: Buffer, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send one message.

        Raises:
            PayloadTooLargeError: more than the server takes; it would cut the connection.
            ConnectionLostError: there is no server now.
        """
        if self.publish_now(subject, data, reply, headers):
            return
        client = self._sendable(subject, data, reply, headers)
        self._stage(client)  # it was published before
        if self.guard.keyed:
            data = self._sealed(subject, data, reply, headers)
        try:
            await client.publish(subject, data, reply, headers)  # type: ignore[arg-type]  # a bytearray does too
        except (NatsError, OSError) as error:
            raise self._lost(error) from error

    def publish_now(
        self, subject: str, data: Buffer, reply: str = "", headers: dict[str, str] | None = None
    ) -> bool:
        """Send one message within this turn of the loop; False: it was not, use ``publish``.

        Raises as ``publish``.
        """
        return self.post(subject, data, reply, header_block(headers) if headers else b"")

    def post(
        self, subject: str, data: Buffer, reply: str = "", block: bytes = b"", when: When = When.SOON
    ) -> bool:
        """As ``publish_now``, for what is sent very often: ``block`` holds the headers as ``header_block`` gives."""
        client = self._sendable(subject, data, reply)
        size = len(data) + len(block)
        if not (subject.isascii() and reply.isascii()):
            f"{subject}{reply}".encode()  # what can't be encoded is the fault of who wants it sent, not of the others
        if client._pending_data_size + self._held_size + size > _AT_ONCE or size > self.max_payload:
            return False
        self._held.append((subject, data, reply, block))
        self._held_size += size + len(subject)
        if when is _NOW:
            self.write_held()
        elif when is not _HELD and self._writing is None:
            self._writing = self._loop.call_soon(self._write, _TURNS if when is _LATER else 0)
        return True

    def _write(self, turns: int) -> None:
        """Wait some turns of the loop, in each of which more may come; timers are too coarse in some loops."""
        self._writing = self._loop.call_soon(self._write, turns - 1) if turns else None
        if not turns:
            self.write_held()

    def write_held(self) -> None:
        """Write what was posted, unless so much is unsent that nats-py has to wait for it to leave."""
        client = self._client
        if client is None:
            self._held, self._held_size = [], 0
            return
        self._stage(client)
        if not client._pending or write_pending(client):
            return
        if client._flush_queue is not None and client._flush_queue.empty():
            client._flush_queue.put_nowait(self._loop.create_future())

    def _stage(self, client: DirectClient) -> None:
        """Make what was posted ready to be written: one after the other that is faster than one now and then."""
        held, self._held, self._held_size = self._held, [], 0
        seals = self.guard.seal_all(held) if self.guard.keyed else repeat(b"")
        pending, total = client._pending, 0
        for (subject, data, reply, block), seal in zip(held, seals, strict=False):
            start = block + seal
            size = len(data) + len(start)
            total += size + len(subject)
            line = f"PUB {subject} {reply} {size}\r\n"
            if block:
                line = f"HPUB {subject} {reply} {len(block)} {size}\r\n"
            pending += (line.encode() + start, data, _END)  # type: ignore[arg-type]  # a bytearray does too
        client._pending_data_size += total

    async def send_pieces(
        self,
        subject: str,
        pieces: Sequence[Buffer],
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """As ``publish``, for one large message given in pieces that need not be copied together.

        Unlike nats-py's ``publish`` it does not wait for ever when the server goes meanwhile, and
        can be cancelled. It may overtake small messages that were published before. Raises as ``publish``.
        """
        client = self._sendable(subject, pieces[0], reply, headers)
        if self.guard.keyed:
            pieces = [self.guard.seal(subject, pieces, reply, headers), *pieces]
        block = header_block(headers) if headers else b""
        try:
            await send(client, subject, reply, pieces, headers or {}, block)
        except (NatsError, OSError) as error:
            raise self._lost(error) from error

    def _sealed(self, subject: str, data: Buffer, reply: str, headers: Mapping[str, str] | None) -> Buffer:
        seal = self.guard.seal(subject, (data,), reply, headers)
        return seal + data if seal else data

    def _sendable(
        self, subject: str, data: Buffer, reply: str, headers: Mapping[str, str] | None = None
    ) -> DirectClient:
        """The client, if there is one and the server would take this message."""
        client = self._client
        if not subject or len(subject) + len(reply) > _MAX_SUBJECTS:
            raise PayloadTooLargeError(
                f"A subject and reply subject of {len(subject)} and {len(reply)} characters; "
                f"1 to {_MAX_SUBJECTS} together is what the NATS server takes.",
                size=len(subject) + len(reply),
                limit=_MAX_SUBJECTS,
            )
        size = len(data) + header_size(headers) if headers else len(data)
        if size > self.max_payload:
            raise PayloadTooLargeError(
                f"A message of {size:,} bytes; the NATS server takes {self.max_payload:,} (max_payload).",
                size=size,
                limit=self.max_payload,
            )
        if client is None or client.is_closed:
            raise ConnectionLostError(
                f"There is no connection to the NATS server at {self.shown}.", url=self.shown
            )
        return client

    def _lost(self, error: BaseException) -> ConnectionLostError:
        return ConnectionLostError(f"The connection to {self.shown} was lost: {error}", url=self.shown)

    async def flush(self) -> None:
        """Wait until the server has all that was published (or is gone)."""
        client = self._client
        if client is not None:
            self.write_held()
            # A cancelled flush would leave the client deaf, so it is never cancelled.
            await asyncio.sleep(0)
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await asyncio.shield(asyncio.ensure_future(client.flush()))
