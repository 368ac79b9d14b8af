"""Telling workers which replies have arrived, many in one message."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.codec.ids import batches
from genro_nats.transport.outbox import Outbox

__all__ = ["Acks"]

_DELAY: Final = 0.1  # seconds for which acknowledgements are collected
_GREETED: Final = 10_000  # workers remembered
_AT_ONCE: Final = 64 * 1024  # bytes; a larger reply is acknowledged at once: it is held in memory until then


class Acks:
    """Acknowledgements of replies, collected for a moment."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[bytes]] = {}
        self._greeted: set[str] = set()

    def add(self, worker: str, id: bytes, size: int) -> None:
        """A reply of ``size`` bytes has arrived, or is not wanted any more."""
        if not worker:
            return
        if not self._waiting:
            self._loop.call_later(_DELAY, self.send)
        self._waiting.setdefault(worker, []).append(id)
        if size >= _AT_ONCE:
            self.send()

    def send(self) -> None:
        """Send what was collected."""
        waiting, self._waiting = self._waiting, {}
        for worker, ids in waiting.items():
            for batch in batches(ids):
                frame = Frame(FrameKind.ACK, body=b"".join(batch), meta=self._greeting(worker))
                self._outbox.post(worker, worker, encode(frame))

    def _greeting(self, worker: str) -> bytes:
        """The first acknowledgement to a worker says which version this caller is."""
        if worker in self._greeted:
            return b""
        if len(self._greeted) >= _GREETED:
            self._greeted.clear()
        self._greeted.add(worker)
        from genro_nats import __version__  # reading it imports much

        return json.dumps({"version": __version__}).encode()
