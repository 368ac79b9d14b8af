"""A task's attempt in a child: what comes back from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from genro_nats.codec.frame import Buffer, FrameKind
from genro_nats.errors import ExecutorError
from genro_nats.executor.children.work import Work
from genro_nats.transport.pipe import Parts

__all__ = ["Ended", "GivenBackError", "TaskWork"]


class GivenBackError(ExecutorError):
    """In place of an outcome: another worker is to run it. Fields: ``began``."""


class Ended(NamedTuple):
    """How an attempt ended: by a REPLY or ERROR frame, or by an error of ours in its place."""

    kind: int
    frame: Buffer
    error: Exception | None = None


class TaskWork(Work):
    """An attempt on its way through the children. ``heard``: called with each frame but the last.

    ``ended``: called with the end, at once; without it the end is in ``outcome``.
    """

    __slots__ = ("ended", "heard", "outcome")

    def __init__(
        self,
        id: bytes,
        parts: Parts,
        key: bytes,
        heard: Callable[[int, Buffer], object],
        *,
        deadline: float = inf,
        ended: Callable[[Ended], object] | None = None,
    ) -> None:
        super().__init__(id, parts, key, deadline=deadline)
        self.heard = heard
        self.ended = ended
        self.outcome: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def received(self, kind: int, data: Buffer) -> None:
        if kind != FrameKind.REPLY and kind != FrameKind.ERROR:
            self.heard(kind, data)
        else:
            self._end(Ended(kind, data))

    def failed(self, error: Exception) -> None:
        self._end(Ended(FrameKind.ERROR, b"", error))

    def _end(self, ended: Ended) -> None:
        if self.outcome.done():
            return
        self.outcome.set_result(ended)
        if self.ended is not None:
            self.ended(ended)
