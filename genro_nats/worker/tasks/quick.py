"""The short way of a task that nobody had before: run, stored and acknowledged by callbacks."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from genro_nats.codec.frame import FrameKind
from genro_nats.errors import (
    ConnectionLostError,
    ExecutorError,
    SequenceConflictError,
    StreamError,
    StreamUnavailableError,
)
from genro_nats.tasks.record import Record, pack
from genro_nats.tasks.status import TaskState
from genro_nats.transport.nats import Message
from genro_nats.worker.tasks.held import HeldTask
from genro_nats.worker.tasks.work import Ended

__all__ = ["QuickTask"]


class QuickTask(HeldTask):
    """Held without a coroutine of its own, as long as it ends soon and well."""

    __slots__ = ()

    def begin_quick(self) -> None:
        """Run a task that nobody had before, without a coroutine of its own.

        One that ends well within the time that needs no claim is settled by callbacks; whatever
        else happens to it, it goes on in the usual way (``resume``).
        """
        self._running = claim = self._claim(0)
        self._begin(claim, self._ended_quick)

    def _ended_quick(self, ended: Ended) -> None:
        claim, self._running = self._running, None
        assert claim is not None
        plain = ended.error is None and ended.kind == FrameKind.REPLY
        noted = self._claiming is not None or self._notes is not None
        if not plain or self.cancelled or noted:
            self._service.resume(self, self._resume(claim, ended))
            return
        self._fill(claim, TaskState.COMPLETED, "", "")
        if not self._service.shelf.fits(len(ended.frame)):
            self._service.resume(self, self._resume(claim, ended))
            return
        data = pack(claim, ended.frame)
        try:
            storing = self._service.store.post(self.task.id, data, self.task.ttl, self._service.when)
        except ExecutorError:
            storing = None
        if storing is None:
            self._service.resume(self, self._resume(claim, ended))
        else:
            storing.add_done_callback(partial(self._stored_quick, claim, ended, data))

    def _stored_quick(
        self, claim: Record, ended: Ended, data: bytes, storing: asyncio.Future[Message]
    ) -> None:
        if storing.cancelled() or storing.exception() is not None or storing.result().status:
            self._service.resume(self, self._store_again(claim, ended, data))
            return
        if b'"error"' in storing.result().data:  # refused; the usual way knows what to do
            self._service.resume(self, self._resume(claim, ended))
            return
        with contextlib.suppress(ConnectionLostError):  # it comes again, and is found settled
            self.delivery.ack_now(self._service.when)
        self._service.after.count(TaskState.COMPLETED)
        self._service.left(self)

    async def _store_again(self, claim: Record, ended: Ended, data: bytes) -> None:
        save = partial(self._service.store.save_packed, self.task.id, data, self.task.ttl)
        try:
            await self._insist(save, len(ended.frame))
        except SequenceConflictError:
            self._service.after.fenced(self.task)
            raise
        except (StreamError, StreamUnavailableError):
            await self._ended(claim, ended)  # it is too large, or the stream is full
            return
        await self.delivery.ack()
        self._service.after.count(TaskState.COMPLETED)

    async def _resume(self, claim: Record, ended: Ended) -> None:
        if self._claiming is not None:
            self._seq = await self._claiming
        if self._notes is not None:
            await self._notes.stored()
        await self._ended(claim, ended)
