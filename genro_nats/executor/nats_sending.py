"""How a call leaves for its workers: in a message, or as a reference to what can be pulled; compressed first; again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sized
from typing import Any, Final

from genro_nats.codec.compression import is_large
from genro_nats.codec.frame import Frame, chunks, size, with_seconds
from genro_nats.codec.reference import refer
from genro_nats.config import PoolOptions
from genro_nats.errors import ConnectionLostError, ExecutorError, PayloadTooLargeError
from genro_nats.executor.nats_pending import Pending
from genro_nats.transport.apart import press_apart
from genro_nats.transport.nats import Connection, When
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["CallSender"]

_PAUSE: Final = 0.01  # seconds before a call is tried again on a connection that is breaking
_BARE: Final = 4  # chunks of a call without buffers at most: all of them bytes
_FEW: Final = 2  # calls in hand up to which each is written at once; more go together


class CallSender:
    """Sends calls to ``subject``, to be answered in ``inbox``; ``pending``: those that have no answer yet."""

    def __init__(
        self,
        connection: Connection,
        transfer: Transfer,
        options: PoolOptions,
        name: str,
        subject: str,
        inbox: str,
        pending: Sized,
    ) -> None:
        self._connection = connection
        self._transfer = transfer
        self._options = options
        self._name = name
        self._subject = subject
        self._inbox = inbox
        self._pending = pending
        self._loop = asyncio.get_running_loop()

    def prepare(self, pending: Pending, frame: Frame) -> None:
        """Make a call's message, unless it is to be compressed for that first. Raises PayloadTooLargeError."""
        if self._options.compression is not None and is_large(frame):
            pending.unpressed = frame
        else:
            pending.parts = chunks(frame)
            self._fill(pending, frame.name)

    def _fill(self, pending: Pending, name: bytes = b"") -> None:
        """Make the message to be published: the call, or where it can be pulled."""
        parts = pending.parts
        length = sum(map(size if len(parts) > _BARE else len, parts))
        self.check_size(name, length)
        if length <= self._options.inline_limit and length <= self._connection.max_payload:
            pending.data, pending.parts = b"".join(parts), ()
            return
        pending.reference = self._transfer.owner.offer(parts)
        pending.data = refer(b"".join(parts[:2]), pending.reference)

    def check_size(self, name: bytes, length: int) -> None:
        """Raises PayloadTooLargeError for a call with more than ``max_payload_size``."""
        limit = self._options.max_payload_size
        if length > limit:
            raise PayloadTooLargeError(
                f"A call of {name.decode(errors='replace')} takes {length:,} bytes; "
                f"pool '{self._name}' sends {limit:,} (max_payload_size).",
                size=length,
                limit=limit,
            )

    def posted(self, pending: Pending) -> bool:
        """Send the call within this turn of the loop; False: it has to wait for something."""
        connection = self._connection
        if pending.reference is not None or pending.unpressed is not None or not connection.connected:
            return False
        when = When.NOW if len(self._pending) <= _FEW else When.SOON
        try:
            return connection.post(
                self._subject, pending.data, self._inbox + pending.call.id.hex(), when=when
            )
        except ConnectionLostError:
            return False

    async def publish(self, pending: Pending) -> None:
        """Send the call, waiting out a lost connection as long as allowed."""
        reply = self._inbox + pending.call.id.hex()
        if pending.unpressed is not None:
            await self._press(pending, pending.unpressed)
        if pending.reference is not None:
            await self._openline(pending)
        while not pending.outcome.done():
            if self._connection.connected:
                try:
                    await self._connection.publish(self._subject, pending.data, reply)
                except ConnectionLostError:
                    await asyncio.sleep(_PAUSE)  # nothing was sent; the loss is not yet noticed everywhere
                    continue
                pending.heard = self._loop.time()
                return
            up = self._loop.create_task(self._connection.up.wait())
            waits: list[asyncio.Future[Any]] = [up, pending.outcome]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()

    async def _press(self, pending: Pending, frame: Frame) -> None:
        """Compress a large call, and make its message."""
        await self._unless_ended(pending, press_apart(frame, self._options.compression))
        if pending.outcome.done():
            return
        pending.unpressed, pending.parts = None, chunks(frame)
        self._fill(pending, frame.name)
        self._restate(pending)

    async def _openline(self, pending: Pending) -> None:
        """Be ready to be asked for large payloads, before the first is announced."""
        if not self._transfer.line.opened:
            await self._unless_ended(pending, self._transfer.open())

    async def _unless_ended(self, pending: Pending, work: Coroutine[Any, Any, object]) -> None:
        """Do what a call needs before it is sent, as long as that is wanted."""
        working = self._loop.create_task(work)
        waits: list[asyncio.Future[Any]] = [working, pending.outcome]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            working.cancel()

    def _restate(self, pending: Pending) -> None:
        """What is left of its timeout goes into its message."""
        if pending.timer is not None:
            pending.data = with_seconds(pending.data, pending.timer.when() - self._loop.time())

    async def again(self, pending: Pending, delay: float) -> None:
        """Send a call again that was not started, after ``delay`` seconds."""
        await asyncio.sleep(delay)
        if pending.outcome.done():
            return
        if pending.reference is not None:
            # Under another id: what was sent of it before says nothing about who has it now.
            self._transfer.owner.drop(pending.reference.payload)
            self._fill(pending)
        self._restate(pending)
        try:
            await self.publish(pending)
        except ExecutorError as error:
            pending.fail(error)
