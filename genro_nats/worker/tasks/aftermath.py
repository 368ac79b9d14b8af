"""What follows when an attempt of a task ends: counts, events, lists, dead letters, what was stored apart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from genro_nats.codec.blob import Blob, BlobId, blob_id
from genro_nats.codec.frame import Buffer
from genro_nats.errors import DecodeError
from genro_nats.events import Events
from genro_nats.tasks.message import TaskMessage
from genro_nats.tasks.orphans import release
from genro_nats.tasks.record import Record
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.status import TaskState
from genro_nats.tasks.store import StateStore
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.subjects import TaskSubjects, user_of
from genro_nats.worker.errors import error_type
from genro_nats.worker.tasks.asks import Asks
from genro_nats.worker.tasks.burial import Burial

__all__ = ["Aftermath"]

_REPLICAS: Final = 2.0  # seconds in which replicas learn of what is gone


class Aftermath:
    """``spawn`` runs a coroutine beside; ``counts`` are the worker's for this pool."""

    def __init__(
        self,
        js: JetStream,
        subjects: TaskSubjects,
        store: StateStore,
        shelf: Shelf,
        asks: Asks,
        burial: Burial,
        events: Events,
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
    ) -> None:
        self.counts = {"tasks": 0, "completed": 0, "failed": 0, "cancelled": 0, "fenced": 0, "reruns": 0}
        self._js = js
        self._subjects = subjects
        self._store = store
        self._shelf = shelf
        self._asks = asks
        self._burial = burial
        self._events = events
        self._spawn = spawn

    def rerun(self, task: TaskMessage, record: Record, delay: float) -> None:
        """It went back to the queue."""
        self.counts["reruns"] += 1
        self._events(
            "task.again", task=task.id, function=task.function, attempts=record.attempts, error=record.error
        )
        if record.state is TaskState.SCHEDULED and delay >= 1.0:
            self._spawn(self._store.note("index", record.state, task.id, ttl=delay))

    async def ending_badly(self, task: TaskMessage, record: Record, delivery: Delivery) -> None:
        """It is about to fail for good or to be cancelled: enter it in the list, and bury what failed."""
        await self._store.note("index", record.state, task.id, ttl=task.ttl)
        if record.state is TaskState.FAILED:
            await self._burial.failed(task, record, delivery)
            self._events(
                "task.failed",
                task=task.id,
                function=task.function,
                reason=record.reason,
                type=error_type(record.error),
                error=record.error,
            )

    async def ended_well(self, task: TaskMessage) -> None:
        """A task that was begun before has ended well; its worker may have died while it buried it."""
        await self._burial.undo(task)

    async def unbury(self, task: TaskMessage) -> None:
        """It was buried by who no longer holds it: the letter stays only if it has failed for others too."""
        stored = await self._store.load(task.id)
        if stored is None or stored.state is not TaskState.FAILED:
            await self._burial.undo(task)

    async def cancelled(self, task: TaskMessage) -> None:
        """Its cancelling was asked for, and is done."""
        await self._asks.done("cancel", task.id)

    async def stored_apart(self, task: TaskMessage, frame: Buffer) -> tuple[Buffer, Blob | None]:
        """An outcome as it goes into its record; what of it was stored apart. Raises as ``Shelf.put``."""
        if self._shelf.fits(len(frame)):
            return frame, None
        return await self._shelf.put(frame, user_of(task.id), [self._subjects.state(task.id)], task.ttl)

    async def used(self, task: TaskMessage) -> None:
        """It is settled: what was stored of it apart goes, unless a dead letter or another run needs it."""
        if not task.is_referred:
            return
        with contextlib.suppress(DecodeError):
            id = blob_id(task.data)
            if not await release(self._js, self._shelf.blobs, self._subjects, id):
                self._spawn(self._release(id))

    async def _release(self, id: BlobId) -> None:
        """A replica may still have shown what is gone. What stays then is looked at by the sweeper."""
        await asyncio.sleep(_REPLICAS)
        await release(self._js, self._shelf.blobs, self._subjects, id)

    def fenced(self, task: TaskMessage) -> None:
        """Somebody else has stored its state: this attempt counts for nothing."""
        self.counts["fenced"] += 1
        self._events("task.fenced", task=task.id, function=task.function)

    def count(self, state: TaskState) -> None:
        """One more has ended."""
        self.counts[state.value] += 1
