"""One call on its way through the children of a pool."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from genro_nats.codec.frame import Buffer
from genro_nats.transport.pipe import Parts

if TYPE_CHECKING:
    from genro_nats.executor.children.child import Child

__all__ = ["Work"]


class Work:
    """A call frame and where its replies go. Subclasses say what happens with them.

    ``parts``: the frame's chunks, or the frame in shared memory. ``key``: the function's name, for the memory of
    short calls. ``deadline``: event loop time; ``stated``: the seconds its caller gave it, None: what was left
    when it came. ``stream``: it takes a child for itself.
    ``short``: it is expected to be. ``solo``: it is never sent ahead behind another call.
    """

    __slots__ = (
        "child",
        "deadline",
        "done",
        "id",
        "key",
        "large",
        "parts",
        "short",
        "solo",
        "stated",
        "stream",
        "timer",
    )

    def __init__(
        self, id: bytes, parts: Parts, key: bytes, *, deadline: float = inf, stream: bool = False
    ) -> None:
        self.id = id
        self.parts = parts
        self.key = key
        self.deadline = deadline
        self.stream = stream
        self.large = False  # it takes long to open and answer, whatever its function does
        self.short = False
        self.solo = False
        self.stated: float | None = None
        self.done = False
        self.child: Child | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def may_wait(self) -> bool:
        """May it be sent to a child that runs another one?"""
        return self.short and not self.solo

    def received(self, kind: int, data: Buffer) -> None:
        """A frame from the child; REPLY and ERROR are the last."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """The call ended without a reply."""
        raise NotImplementedError
