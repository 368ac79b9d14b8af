"""What leaves for callers: small frames in messages, large ones as references."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from genro_nats.codec.frame import Buffer
from genro_nats.codec.reference import refer
from genro_nats.config import PoolOptions
from genro_nats.errors import ExecutorError, PayloadTooLargeError
from genro_nats.transport.nats import Connection
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.retention import Retention

__all__ = ["Outlet"]

log: Final = logging.getLogger("genro_nats.worker")

_PATIENCE: Final = 5.0  # seconds without a word from those who pull


class Outlet:
    """Posts frames in order, whatever their size; outcomes are kept until their callers have them."""

    def __init__(
        self, connection: Connection, outbox: Outbox, transfer: Transfer, options: PoolOptions
    ) -> None:
        self._connection = connection
        self._outbox = outbox
        self._transfer = transfer
        self._inline_limit = options.inline_limit
        self._size_limit = options.max_payload_size
        self._loop = asyncio.get_running_loop()
        self._held: dict[bytes, list[tuple[str, str, Buffer]]] = {}
        self._items: dict[bytes, set[bytes]] = {}  # by call: payloads of its items that may still be pulled
        self._unwanted: set[bytes] = set()  # calls whose callers left, and which have not ended
        self._opening: asyncio.Task[None] | None = None
        self.retention = Retention(on_drop=self._transfer.owner.drop)

    def too_large(self, name: bytes, frame: Buffer) -> PayloadTooLargeError:
        """The error of an outcome over ``max_payload_size``; ``name``: of the function it comes from."""
        return PayloadTooLargeError(
            f"The outcome of {name.decode(errors='replace')} takes {len(frame):,} bytes; "
            f"the worker sends {self._size_limit:,} (max_payload_size).",
            size=len(frame),
            limit=self._size_limit,
        )

    def item(self, id: bytes, caller: str, reply: str, frame: Buffer) -> None:
        """Send an item or progress to a call's caller."""
        if self._inline(frame):
            self._post(id, caller, reply, frame)
        else:
            reference = self._transfer.owner.offer([frame], once=True)
            self._items.setdefault(id, set()).add(reference.payload)
            self._post_reference(id, caller, reply, refer(frame, reference))

    def outcome(self, id: bytes, caller: str, reply: str, frame: Buffer, *, alone: bool) -> None:
        """Send a call's outcome, and keep it until it is acknowledged. ``alone``: nothing else is about to leave."""
        now = self._loop.time()
        if id in self._unwanted:
            self._unwanted.remove(id)
            self._drop_items(id)
        if self._inline(frame):
            self.retention.keep(id, reply, frame, now)
            self._post(id, caller, reply, frame, alone)
            return
        reference = self._transfer.owner.offer([frame], lambda: self.retention.touch(id, self._loop.time()))
        data = refer(frame, reference)
        self.retention.keep(id, reply, data, now, reference.payload)
        self._post_reference(id, caller, reply, data)

    def unwanted(self, id: bytes, *, ended: bool) -> None:
        """The caller of a call left: nobody pulls its items. ``ended``: it had its outcome before."""
        if not ended:
            self._unwanted.add(id)
        self._drop_items(id)

    def _drop_items(self, id: bytes) -> None:
        for payload in self._items.pop(id, ()):
            self._transfer.owner.drop(payload)

    def _inline(self, frame: Buffer) -> bool:
        return len(frame) <= min(self._inline_limit, self._connection.max_payload)

    def _post(self, id: bytes, caller: str, reply: str, frame: Buffer, alone: bool = False) -> None:
        if id in self._held:
            self._held[id].append((caller, reply, frame))
        else:
            (self._outbox.post_now if alone else self._outbox.post)(caller, reply, frame)

    def _post_reference(self, id: bytes, caller: str, reply: str, data: bytes) -> None:
        if self._transfer.line.opened:
            self._post(id, caller, reply, data, alone=True)
            return
        # A reference is of no use before its owner can be asked, and later frames must not overtake it.
        self._held.setdefault(id, []).append((caller, reply, data))
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._transfer.open()
        except ExecutorError as error:
            log.warning("large results can't be sent: %s", error)  # who asks for them is told by the server
        finally:
            self._opening = None
            held, self._held = self._held, {}
            for frames in held.values():
                for frame in frames:
                    self._outbox.post(*frame)

    def sweep(self) -> None:
        """Once a second: send again what was not acknowledged, drop what nobody asks for."""
        owner = self._transfer.owner
        owner.sweep()
        for id, payloads in list(self._items.items()):
            payloads.intersection_update(owner.payloads)
            if not payloads:
                del self._items[id]
        if self._connection.connected:
            for kept in self.retention.due(self._loop.time()):
                self._outbox.post(kept.subject, kept.subject, kept.data)

    async def settled(self, timeout: float, aborting: asyncio.Event) -> None:
        """Wait until callers have everything: ``timeout`` seconds at most, but as long as they go on pulling."""
        owner = self._transfer.owner
        begin = self._loop.time()
        while len(self.retention) or len(owner):
            since, limit = begin, timeout
            if len(owner):
                since, limit = max(begin, owner.moved_at), max(timeout, _PATIENCE)
            if self._loop.time() - since > limit or aborting.is_set():
                return
            await asyncio.sleep(0.01)

    def aclose(self) -> None:
        """Give up what is about to open."""
        if self._opening is not None:
            self._opening.cancel()
