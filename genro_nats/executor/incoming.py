"""What a caller receives besides the reply: stream items under credit, and progress."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from genro_nats.codec.codecs import Codecs
from genro_nats.codec.frame import Frame, FrameKind
from genro_nats.executor.false_end import no_false_end
from genro_nats.executor.wire import load_progress, load_reply, load_value
from genro_nats.message import STREAM_WINDOW, ProgressUpdate

__all__ = ["ItemBuffer", "tell_progress"]

log: Final = logging.getLogger("genro_nats.executor")

Control = Callable[[Frame], None]


class ItemBuffer:
    """The items of one remote generator: a StreamSource fed by frames.

    ``begin(self)`` sends the call and gives the function that sends it control
    frames. The generator may be ``STREAM_WINDOW`` items ahead of who takes them.
    """

    def __init__(self, begin: Callable[[ItemBuffer], Control], codecs: Codecs) -> None:
        self._begin = begin
        self._codecs = codecs
        self._control: Control | None = None
        self._frames: deque[Frame] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._taken = 0
        self._arrived = asyncio.Event()

    async def receive(self) -> Any:
        """The next item. Raises StopAsyncIteration at the end, or what the generator raised."""
        if self._control is None and not self._ended:
            self._control = self._begin(self)
        while not self._frames:
            if self._error is not None:
                error, self._error, self._ended = self._error, None, True
                raise error
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._take(self._frames.popleft())

    def _take(self, frame: Frame) -> Any:
        if frame.kind != FrameKind.ITEM:
            self._ended = True
            with no_false_end():
                load_reply(frame, self._codecs)
            raise StopAsyncIteration
        self._taken += 1
        if self._taken >= STREAM_WINDOW // 2:
            self._grant(self._taken)
            self._taken = 0
        return load_value(frame, self._codecs)

    def _grant(self, count: int) -> None:
        if self._control is not None:
            self._control(Frame(FrameKind.CREDIT, seconds=float(count)))

    def put(self, frame: Frame) -> None:
        """An item, or the end."""
        self._frames.append(frame)
        self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """The stream ended without a reply; what has arrived can still be taken."""
        self._error = error
        self._arrived.set()

    async def aclose(self) -> None:
        """Stop the generator, unless it has ended."""
        self.abort()

    def abort(self) -> None:
        """As ``aclose``."""
        finished = self._ended or any(frame.kind != FrameKind.ITEM for frame in self._frames)
        if self._control is not None and not finished and self._error is None:
            self._control(Frame(FrameKind.CANCEL))
        self._ended = True
        self._frames.clear()
        self._error = None
        self._arrived.set()


def tell_progress(listener: Callable[[ProgressUpdate], object] | None, frame: Frame, codecs: Codecs) -> None:
    """Call a progress listener; its errors are logged, not the call's."""
    if listener is None:
        return
    try:
        listener(load_progress(frame, codecs))
    except Exception:
        log.exception("on_progress raised")
