"""One side of all transfers of an executor or worker: owner and puller on one line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from genro_nats.codec.frame import Frame, FrameKind
from genro_nats.codec.reference import Reference
from genro_nats.config import PoolOptions
from genro_nats.transport.address import Address
from genro_nats.transport.guard import Guard
from genro_nats.transport.identity import identity, named_peer
from genro_nats.transport.transfer.line import Line
from genro_nats.transport.transfer.owner import Owner
from genro_nats.transport.transfer.puller import Puller, Sink

__all__ = ["Transfer"]


class Transfer:
    """Offers payloads and pulls those of others. Its connection is opened when first needed."""

    def __init__(self, options: PoolOptions, name: str, guard: Guard | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        peer = named_peer(identity(options), 24)
        self.line = Line(
            Address(options), name, options.prefix, options.connect_timeout, peer, guard or Guard()
        )
        self.owner = Owner(self.line)
        self._puller = Puller(self.line)
        self.line.on_frame = self._received
        self.line.on_chunk = self._puller.chunk
        self.line.on_absent = self._puller.absent
        self.line.on_flawed = self._puller.flawed

    async def open(self) -> None:
        """Make sure that payloads which are offered can be pulled. Raises ConnectionLostError."""
        await self.line.open()

    async def pull(
        self, reference: Reference, sink: Sink, on_moved: Callable[[], None] | None = None
    ) -> None:
        """As ``Puller.pull``."""
        await self.line.open()
        await self._puller.pull(reference, sink, on_moved)

    def want(self, reference: Reference) -> None:
        """As ``Puller.want``."""
        self._puller.want(reference)

    async def aclose(self) -> None:
        """Drop all payloads and leave."""
        await self.owner.aclose()
        await self.line.aclose()

    def abandon(self) -> None:
        """Drop all, for an event loop that may never run again."""
        self.owner.abandon()
        self.line.abandon()

    def _received(self, frame: Frame) -> None:
        if frame.kind == FrameKind.PULL:
            self.owner.pull(frame)
        elif frame.kind == FrameKind.GRANT:
            self.owner.grant(frame)
        elif frame.kind == FrameKind.DONE:
            self.owner.done(frame)
        elif frame.kind == FrameKind.BEAT:
            self._puller.beat(frame.body)
        elif frame.kind == FrameKind.GONE:
            self._puller.gone(frame.id)
