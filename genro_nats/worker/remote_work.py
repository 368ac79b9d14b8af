"""A call that came over NATS, on its way through the children of this worker."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

from genro_nats.codec.frame import (
    Buffer,
    Flag,
    FrameKind,
    Head,
    name_of,
)
from genro_nats.transport.nats import Message
from genro_nats.worker.balance.holder import Movable
from genro_nats.worker.trust import error_frame

if TYPE_CHECKING:
    from genro_nats.worker.service import PoolService

__all__ = ["RemoteWork"]


_GRACE: Final = 0.02  # seconds: a caller that lives ends its call itself, and knows what deadline it stated


class RemoteWork(Movable):
    """A call that came over NATS."""

    __slots__ = ("caller", "flags", "pulling", "service", "since", "size")

    def __init__(self, service: PoolService, message: Message, head: Head, now: float, size: int) -> None:
        late = head.seconds <= 0
        deadline = now + head.seconds + (0.0 if late else _GRACE)
        stream = bool(head.flags & Flag.STREAM)
        super().__init__(
            head.id, [message.data], name_of(message.data, head), deadline=deadline, stream=stream
        )
        self.service = service
        self.stated = None if late or head.seconds == inf else round(head.seconds, 3)
        self.flags = head.flags
        self.reply = message.reply
        self.caller = message.reply[:-33]  # without the call's id in hex
        self.came = now
        self.hops = head.hops
        self.urgent = bool(head.flags & Flag.NO_QUEUE)
        self.announced = message.data if head.flags & Flag.REFERRED else b""
        # Nobody may have beaten for one that was handed on.
        self.since = -inf if head.hops else now
        self.size = size
        self.pulling: asyncio.Task[None] | None = None  # its arguments or function are still on their way

    def received(self, kind: int, data: Buffer) -> None:
        if kind == FrameKind.REPLY or kind == FrameKind.ERROR:
            self.service.answer(self, data)
        else:
            self.service.post(self, data)

    def failed(self, error: Exception) -> None:
        self.service.answer(self, error_frame(self.id, error, self.flags))
