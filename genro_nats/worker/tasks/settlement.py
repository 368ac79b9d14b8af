"""What is stored of a task in a worker's hands, and how it is settled: record, outcome, lists, queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from genro_nats.codec.blob import Blob, blob_id, is_referred
from genro_nats.codec.frame import Buffer
from genro_nats.errors import (
    PayloadTooLargeError,
    SequenceConflictError,
)
from genro_nats.tasks.message import TaskMessage
from genro_nats.tasks.record import Record
from genro_nats.tasks.status import TaskState
from genro_nats.transport.delivery import Delivery
from genro_nats.worker.tasks.notes import Notes
from genro_nats.worker.trust import error_frame

if TYPE_CHECKING:
    from genro_nats.worker.tasks.service import TaskService

__all__ = ["Settlement"]

_MAX_ERROR: Final = 2000  # characters


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

    async def _end(
        self, record: Record, state: TaskState, reason: str, frame: Buffer = b"", error: str = ""
    ) -> None:
        """Store the outcome, unless somebody else holds the task by now; then take it off the queue."""
        completed = state is TaskState.COMPLETED
        settled = self._fill(record, state, reason, error)
        if not completed:
            # Before the outcome: who hears of that finds the rest.
            await self._service.after.ending_badly(self.task, settled, self.delivery)
        blob: Blob | None = None
        try:
            frame, blob = await self._service.after.stored_apart(self.task, frame)
            self._seq = await self._save(settled, frame)
        except PayloadTooLargeError as too_large:
            if blob is not None:
                await self._service.shelf.blobs.drop(blob.id)
            await self._too_large(settled, too_large)
            return
        except SequenceConflictError:
            if blob is not None:
                await self._service.shelf.blobs.drop(blob.id)
            if not completed:
                await self._service.after.unbury(self.task)
            raise
        if completed and self.solo:
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

    async def _too_large(self, record: Record, error: PayloadTooLargeError) -> None:
        """The outcome can't be stored: the task fails, and says why."""
        frame = error_frame(self.task.call_id, error, self.task.head.flags)
        await self._end(record, TaskState.FAILED, "the outcome is too large to be stored", frame, str(error))

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
