"""The caller's answers to workers that lack a function by value."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from genro_nats.codec.by_value import FunctionBlob
from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.codec.function_store import FunctionStore
from genro_nats.codec.reference import refer
from genro_nats.errors import ExecutorError
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["FunctionAnswers"]

log: Final = logging.getLogger("genro_nats.executor")


class FunctionAnswers:
    """Sends each worker what it asks for: in a message up to ``inline_limit`` bytes, else as a reference."""

    def __init__(self, store: FunctionStore, outbox: Outbox, transfer: Transfer, inline_limit: int) -> None:
        self._store = store
        self._outbox = outbox
        self._transfer = transfer
        self._inline_limit = inline_limit
        self._opening: set[asyncio.Task[None]] = set()

    def asked(self, frame: Frame, worker: str, max_payload: int) -> None:
        """A FETCH came from this worker."""
        try:
            blob = self._store.find(bytes.fromhex(frame.name.decode()))
        except ValueError:
            blob = None
        if blob is None:
            self._outbox.post(worker, worker, encode(Frame(FrameKind.GONE, frame.id, frame.name)))
        elif blob.size <= min(self._inline_limit, max_payload):
            self._outbox.post(worker, worker, b"".join(blob.answer(frame.id)))
        else:
            task = asyncio.get_running_loop().create_task(self._refer(blob, frame.id, worker))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _refer(self, blob: FunctionBlob, id: bytes, worker: str) -> None:
        try:
            await self._transfer.open()
        except ExecutorError as error:
            log.warning("a function can't be sent: %s", error)  # the worker asks again, and then gives up
            return
        owner = self._transfer.owner
        owner.sweep()  # of workers that never came for theirs
        parts = blob.answer(id)
        reference = owner.offer(parts, once=True)
        self._outbox.post(worker, worker, refer(b"".join(parts[:2]), reference))

    def aclose(self) -> None:
        """Answer nobody any more."""
        for task in self._opening:
            task.cancel()
