"""Messages sent from plain (non-async) code, collected for one turn of the event loop.

What goes to the same receiver within a turn leaves as one message, its frames
end to end: with many calls in flight this halves what the server has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConnectionLostError, PayloadTooLargeError
from genro_nats.transport.nats import Connection, When

__all__ = ["Outbox"]

log: Final = logging.getLogger("genro_nats.transport")

_CLOSE_TIMEOUT: Final = 1.0  # seconds
_TOGETHER: Final = 64 * 1024  # bytes; larger frames travel alone


class Outbox:
    """Posts frames; what can't be sent because the server is away is dropped.

    ``sender`` is the reply address put on every message.
    """

    def __init__(self, connection: Connection, sender: str = "") -> None:
        self._connection = connection
        self._sender = sender
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[tuple[str, Buffer]]] = {}
        self._flushing: asyncio.Handle | None = None
        self._behind: deque[tuple[str, Buffer]] = deque()  # until the connection takes more
        self._catching_up: asyncio.Task[None] | None = None

    def post(self, receiver: str, subject: str, frame: Buffer) -> None:
        """Send a frame soon. Frames of one ``receiver`` may share a message, on the first one's subject."""
        waiting = self._waiting.get(receiver)
        if waiting is not None:
            waiting.append((subject, frame))
            return
        self._waiting[receiver] = [(subject, frame)]
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def post_now(self, receiver: str, subject: str, frame: Buffer) -> None:
        """As ``post``, for a frame that nothing else is about to join: it saves a turn of the loop."""
        if self._waiting:
            self.post(receiver, subject, frame)
        else:
            self._send(subject, frame, When.NOW)

    def _flush(self) -> None:
        self._flushing = None
        waiting, self._waiting = self._waiting, {}
        for frames in waiting.values():
            for subject, data in _bundled(frames):
                self._send(subject, data, When.HELD)
        self._connection.write_held()

    def _send(self, subject: str, data: Buffer, when: When) -> None:
        try:
            if self._behind or not self._connection.post(subject, data, self._sender, when=when):
                self._fall_behind(subject, data)
        except (ConnectionLostError, PayloadTooLargeError):
            pass
        except Exception:
            log.exception("a message to %s could not be sent", subject)

    def _fall_behind(self, subject: str, data: Buffer) -> None:
        self._behind.append((subject, data))
        if self._catching_up is None:
            self._catching_up = self._loop.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        """Send, waiting for the connection, what came while it would not take more."""
        while self._behind:
            # It stays in front meanwhile: what comes now goes behind it.
            subject, data = self._behind[0]
            try:
                await self._connection.publish(subject, data, self._sender)
            except (ConnectionLostError, PayloadTooLargeError):
                pass
            except Exception:
                log.exception("a message to %s could not be sent", subject)
            self._behind.popleft()
        self._catching_up = None

    async def aclose(self) -> None:
        """Send what was posted, as far as that takes a moment, and end."""
        self._flush()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    if self._catching_up is not None:
                        # Not cancelled: what it has in hand would be lost. A loop that is ending
                        # has done that before it closes us.
                        await asyncio.wait([self._catching_up])
                    await self._connection.flush()
        finally:
            if self._catching_up is not None:
                self._catching_up.cancel()


def _bundled(frames: list[tuple[str, Buffer]]) -> list[tuple[str, Buffer]]:
    if len(frames) == 1:
        return frames
    bundles: list[tuple[str, Buffer]] = []
    subject, parts, size = frames[0][0], [frames[0][1]], len(frames[0][1])
    for next_subject, frame in frames[1:]:
        if size + len(frame) > _TOGETHER:
            bundles.append((subject, b"".join(parts)))
            subject, parts, size = next_subject, [], 0
        parts.append(frame)
        size += len(frame)
    bundles.append((subject, b"".join(parts)))
    return bundles
