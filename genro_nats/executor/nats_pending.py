"""A call over NATS that has no reply yet, and all that belongs to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from genro_nats.codec.by_value import FunctionBlob
from genro_nats.codec.frame import Buffer, Frame
from genro_nats.codec.reference import Reference
from genro_nats.executor.incoming import ItemBuffer
from genro_nats.message import Call

__all__ = ["Pending"]


class Pending:
    """``data`` is what is published: the call, or a reference to ``parts``, which stay here.

    ``unpressed``: the call, as long as that is still to be compressed.
    """

    __slots__ = (
        "backlog",
        "began",
        "call",
        "data",
        "function",
        "heard",
        "items",
        "left",
        "losses",
        "missed",
        "outcome",
        "parts",
        "pulled",
        "pulling",
        "reference",
        "refused",
        "retries",
        "timer",
        "unpressed",
        "worker",
    )

    def __init__(
        self,
        call: Call,
        now: float,
        outcome: asyncio.Future[Frame],
        items: ItemBuffer | None,
    ) -> None:
        self.call = call
        self.parts: Sequence[Buffer] = ()
        self.unpressed: Frame | None = None
        self.data = b""
        self.reference: Reference | None = None
        self.began = now
        self.function: FunctionBlob | None = None  # held as long as a worker may ask for it
        self.heard = now
        self.items = items
        self.outcome = outcome
        self.retries = 0
        self.refused = False
        self.losses = 0  # workers lost before they had its arguments
        self.left: frozenset[str] = frozenset()  # their inboxes
        self.missed: float | None = None  # when it was first told that nobody serves
        self.timer: asyncio.TimerHandle | None = None
        self.worker = ""  # its inbox, once it has shown itself
        self.pulling: asyncio.Task[None] | None = None  # a frame is being pulled or expanded
        self.pulled = 0  # the kind of that frame
        self.backlog: deque[Frame] = deque()  # what came behind that

    def fail(self, error: Exception) -> None:
        """End the call with an error, unless it has ended."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # a caller that left does not look at it
