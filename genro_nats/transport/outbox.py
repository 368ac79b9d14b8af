"""Messages sent from plain (non-async) code, collected for one turn of the event loop.

What goes to the same receiver within a turn leaves as one message, its frames
end to end: with many calls in flight this halves what the server has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConnectionLostError, PayloadTooLargeError
from genro_nats.transport.nats import Connection

__all__ = ["Outbox"]

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
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            for frames in waiting.values():
                for subject, data in _bundled(frames):
                    with contextlib.suppress(ConnectionLostError, PayloadTooLargeError):
                        await self._connection.publish(subject, data, self._sender)

    async def aclose(self) -> None:
        """Send what was posted, and end."""
        await asyncio.sleep(0)
        while self._waiting:
            await asyncio.sleep(0.001)
        await self._connection.flush()
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
