"""Messages sent from plain (non-async) code, collected for one turn of the event loop.

What goes to the same receiver within a turn leaves as one message, its frames
end to end: with many calls in flight this halves what the server has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConnectionLostError, PayloadTooLargeError
from genro_nats.transport.nats import Connection

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
        self._waiting: dict[str, list[tuple[str, Buffer]]] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._send())

    def post(self, receiver: str, subject: str, frame: Buffer) -> None:
        """Send a frame soon. Frames of one ``receiver`` may share a message, on the first one's subject."""
        waiting = self._waiting.get(receiver)
        if waiting is None:
            self._waiting[receiver] = [(subject, frame)]
            self._wake.set()
        else:
            waiting.append((subject, frame))

    def post_now(self, receiver: str, subject: str, frame: Buffer) -> None:
        """As ``post``, for a frame that nothing else is about to join: it saves a turn of the loop."""
        try:
            if not self._waiting and self._connection.publish_now(subject, frame, self._sender):
                return
        except (ConnectionLostError, PayloadTooLargeError):
            return
        self.post(receiver, subject, frame)

    async def _send(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for frames in waiting.values():
            for subject, data in _bundled(frames):
                try:
                    await self._connection.publish(subject, data, self._sender)
                except (ConnectionLostError, PayloadTooLargeError):
                    continue
                except Exception:
                    log.exception("a message to %s could not be sent", subject)

    async def aclose(self) -> None:
        """Send what was posted, as far as that takes a moment, and end."""
        self._closing = True
        self._wake.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    # Not cancelled: what it has in hand would be lost. A loop that is ending
                    # has done that before it closes us.
                    await asyncio.wait([self._task])
                    await self._flush()
                    await self._connection.flush()
        finally:
            self._task.cancel()


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
