"""What is stored of a task in a worker's hands, and how it is settled: record, outcome, lists, queue."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from genro_nats.codec.blob import Blob, blob_id, is_referred
from genro_nats.codec.frame import Buffer
from genro_nats.errors import (
    ConnectionLostError,
    ExecutorError,
    PayloadTooLargeError,
    SequenceConflictError,
    StreamError,
    StreamUnavailableError,
    TransportError,
)
from genro_nats.tasks.message import TaskMessage
from genro_nats.tasks.record import Record
from genro_nats.tasks.status import TaskState
from genro_nats.transport.backoff import backoff
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.jetstream import NO_ROOM
from genro_nats.worker.tasks.notes import Notes
from genro_nats.worker.trust import error_frame

if TYPE_CHECKING:
    from genro_nats.worker.tasks.service import TaskService

__all__ = ["Settlement"]

_MAX_ERROR: Final = 2000  # characters
_SMALL: Final = 64 << 10  # bytes of an outcome; a record that says it could not be stored is hardly smaller
_PAUSE: Final = (0.2, 2.0)  # seconds between two attempts to store, first and longest

T = TypeVar("T")


class Settlement:
    """A delivered task with its record; ``_seq`` is where that stands in the states stream, 0 for nowhere."""

    __slots__ = (
        "_checkpoint",
        "_checkpoint_seq",
        "_has_checkpoint",
        "_notes",
        "_record",
        "_seq",
        "_service",
        "delivery",
        "solo",
        "task",
        "unstored",
    )

    def __init__(self, service: TaskService, task: TaskMessage, delivery: Delivery, *, solo: bool) -> None:
        self._service = service
        self._record: Record | None = None
        self._seq = 0
        self._checkpoint: Buffer | None = None
        self._checkpoint_seq = 0
        self._has_checkpoint = False
        self._notes: Notes | None = None
        self.task = task
        self.delivery = delivery
        self.solo = solo
        self.unstored = False  # its run is over, or not claimed yet, and the streams don't take that

    async def _end(
        self, record: Record, state: TaskState, reason: str, frame: Buffer = b"", error: str = ""
    ) -> None:
        """Store the outcome, unless somebody else holds the task by now; then take it off the queue."""
        completed = state is TaskState.COMPLETED
        settled = self._fill(record, state, reason, error)
        if not completed:
            # Before the outcome: who hears of that finds the rest.
            await self._insist(partial(self._service.after.ending_badly, self.task, settled, self.delivery))
        blob: Blob | None = None
        try:
            apart = partial(self._service.after.stored_apart, self.task, frame)
            frame, blob = await self._insist(apart, len(frame))
            self._seq = await self._insist(partial(self._save, settled, frame), len(frame))
        except SequenceConflictError:
            await self._drop_unused(blob)
            if not completed:
                await self._service.after.unbury(self.task)
            raise
        except (PayloadTooLargeError, StreamError, StreamUnavailableError) as refusal:
            await self._drop_unused(blob)
            if not len(frame):
                raise
            await self._not_stored(settled, refusal)
            return
        await self._leave_queue(state)

    async def _leave_queue(self, state: TaskState) -> None:
        """Its outcome is stored: what else there is of it goes."""
        if state is TaskState.COMPLETED and self.solo:
            await self._service.after.ended_well(self.task)
        if self._checkpoint is not None or self._has_checkpoint:
            await self._forget_checkpoint()
        await (self.delivery.ack_sync() if self.task.is_referred else self.delivery.ack())
        await self._service.after.used(self.task)
        self._service.after.count(state)
        if state is TaskState.CANCELLED:
            await self._service.after.cancelled(self.task)

    async def _forget_checkpoint(self) -> None:
        await self._service.store.unnote("checkpoint", self.task.id)
        left = [] if self._notes is None else self._notes.stored_apart
        if self._checkpoint is not None and is_referred(self._checkpoint):
            left.append(blob_id(self._checkpoint))
        for id in left:
            await self._service.shelf.blobs.drop(id)

    def _fill(self, record: Record, state: TaskState, reason: str, error: str) -> Record:
        """What is stored in the end; nobody else has this record."""
        record.state = state
        record.finished_at = self._service.now()
        record.reason = reason
        record.error = "" if state is TaskState.COMPLETED else (error or record.error or reason)[:_MAX_ERROR]
        record.next_retry_at = None
        record.task = self.delivery.subject
        record.keep = self.task.keep
        return record

    async def _drop_unused(self, blob: Blob | None) -> None:
        """The outcome that was stored apart is nobody's. What can't be dropped now has its time to live."""
        if blob is not None:
            with contextlib.suppress(TransportError):
                await self._service.shelf.blobs.drop(blob.id)

    async def _not_stored(self, record: Record, error: ExecutorError) -> None:
        """The outcome can't be stored: the task fails, and says why; to run it again would come to the same end."""
        reason, frame = "its outcome could not be stored", b""
        if isinstance(error, PayloadTooLargeError):
            reason = "the outcome is too large to be stored"
            frame = error_frame(self.task.call_id, error, self.task.head.flags)
        await self._end(record, TaskState.FAILED, reason, frame, f"{error} {record.error}".strip())

    async def _insist(self, store: Callable[[], Awaitable[T]], size: int = 0) -> T:
        """What ``store`` gives. It is repeated while the streams take nothing, and the lease renewed meanwhile.

        ``size``: bytes of the outcome that it stores. What is small is tried as long as the worker lives, since
        nothing smaller could be stored in its place. Anything else raises StreamError at once where
        the server refused it, and StreamUnavailableError once it was silent for some leases.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._service.patience
        for attempt in itertools.count():
            try:
                found = await store()
            except StreamError as error:
                if size > _SMALL or error.code not in NO_ROOM:
                    raise
                self._service.not_stored(self, error)
            except StreamUnavailableError as error:
                if size > _SMALL and loop.time() > deadline:
                    raise
                self._service.not_stored(self, error)
            except ConnectionLostError as error:
                deadline = loop.time() + self._service.patience
                self._service.not_stored(self, error)
            else:
                self.unstored = False
                return found
            await asyncio.sleep(backoff(attempt, *_PAUSE))
        raise AssertionError("unreachable")

    async def _save(self, record: Record, frame: Buffer = b"") -> int:
        ttl = self.task.ttl if record.state.settled else None
        try:
            return await self._service.store.save(self.task.id, record, frame, expected=self._seq, ttl=ttl)
        except SequenceConflictError:
            self._service.after.fenced(self.task)
            raise

    def _base(self, deaths: int) -> Record:
        if self._record is not None:
            return self._record.to(self._record.state, deaths=deaths)
        return Record(TaskState.PENDING, self._created_at(), deaths=deaths, function=self.task.function)

    def _created_at(self) -> float:
        return self.task.created_at or self.delivery.info.stored_at

    def _expires_at(self) -> float | None:
        expires = self.task.expires
        return None if expires is None else self.delivery.info.stored_at + expires
