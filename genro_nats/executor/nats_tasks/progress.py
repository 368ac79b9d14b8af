"""Progress as it comes: small updates at once, large ones read from the blob stream first, all in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from genro_nats.codec.blob import is_referred
from genro_nats.codec.codecs import Codecs
from genro_nats.codec.frame import Frame, decode
from genro_nats.errors import CodecError, DecodeError, ExecutorError
from genro_nats.executor.wire import load_progress
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.shelf import Shelf

__all__ = ["ProgressFeed", "read_progress"]

_WAITING: Final = 100  # updates behind one that is being read; of more, the oldest go


class ProgressFeed:
    """Gives each update to ``give``; what can't be read is left out."""

    def __init__(self, shelf: Shelf, codecs: Codecs, give: Callable[[ProgressUpdate], object]) -> None:
        self._shelf = shelf
        self._codecs = codecs
        self._give = give
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        self._reading: asyncio.Task[None] | None = None

    def put(self, data: bytes) -> None:
        """A stored frame."""
        if self._reading is None and not is_referred(data):
            self._tell(data)
            return
        self._waiting.append(data)
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())

    def close(self) -> None:
        """Give no more."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        try:
            while self._waiting:
                update = await read_progress(self._shelf, self._codecs, self._waiting.popleft())
                if update is not None:
                    self._give(update)
        finally:
            self._reading = None

    def _tell(self, data: bytes) -> None:
        try:
            update = _load(self._shelf.expanded(decode(data)[0]), self._codecs)
        except CodecError:
            return
        if update is not None:
            self._give(update)


async def read_progress(shelf: Shelf, codecs: Codecs, data: bytes) -> ProgressUpdate | None:
    """The progress in a stored frame; None for one that can't be read, or is gone."""
    try:
        return _load(await shelf.frame(data), codecs)
    except ExecutorError:
        return None


def _load(frame: Frame, codecs: Codecs) -> ProgressUpdate | None:
    try:
        return load_progress(frame, codecs)
    except (DecodeError, TypeError):
        return None
