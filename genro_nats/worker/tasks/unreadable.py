"""Tasks that nobody can read: who waits for one hears that it failed, and its message becomes a dead letter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from genro_nats.errors import CodecError, DecodeError, SequenceConflictError, SignatureError
from genro_nats.events import Events
from genro_nats.tasks.options import DEFAULT_RESULT_TTL
from genro_nats.tasks.record import Record
from genro_nats.tasks.status import TaskState
from genro_nats.tasks.store import StateStore
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.subjects import TaskSubjects, from_token
from genro_nats.worker.tasks.asks import Asks
from genro_nats.worker.tasks.burial import Burial, reason_of

__all__ = ["Unreadable"]

_DISTRUSTED_TTL: Final = 60.0  # seconds that the failure of an unsigned task stays: its id is not its own


class Unreadable:
    """Ends what can't be read or is not from who has the key.

    ``held(id)``: the task of this id that this worker holds, or None; ``now()``: the server's time.
    """

    def __init__(
        self,
        js: JetStream,
        subjects: TaskSubjects,
        store: StateStore,
        asks: Asks,
        burial: Burial,
        events: Events,
        held: Callable[[str], object | None],
        now: Callable[[], float],
    ) -> None:
        self._js = js
        self._stream = subjects.tasks_stream
        self._store = store
        self._asks = asks
        self._burial = burial
        self._events = events
        self._held = held
        self._now = now

    async def settle(self, delivery: Delivery, error: CodecError) -> None:
        """Take it out of the queue. Raises TransportError: it stays there."""
        self._events("task.unreadable", subject=delivery.subject, error=str(error))
        if delivery.flaw is None or await self._is_only_one(delivery):
            await self._fail(delivery, error)
        await self._burial.unreadable(delivery, error, self._now())

    async def _fail(self, delivery: Delivery, error: CodecError) -> None:
        """Who waits for it hears of it, unless it is settled."""
        id = self._asks.id_of(delivery, from_token(delivery.subject.rpartition(".")[2]))
        now, seq = self._now(), 0
        try:
            stored = await self._store.load(id)
        except (DecodeError, SignatureError) as unreadable:
            seq = unreadable.seq
        else:
            if stored is not None and stored.settled:
                return
            seq = 0 if stored is None else stored.seq
        record = Record(TaskState.FAILED, delivery.info.stored_at, finished_at=now, task=delivery.subject)
        record.reason, record.error = reason_of(delivery), str(error)
        ttl = DEFAULT_RESULT_TTL if delivery.flaw is None else _DISTRUSTED_TTL
        await self._store.note("index", record.state, id, ttl=ttl)
        with contextlib.suppress(SequenceConflictError):
            await self._store.save(id, record, expected=seq, ttl=ttl)

    async def _is_only_one(self, delivery: Delivery) -> bool:
        """Is nothing known of a task but this message? A stranger's must not end one that is there."""
        subject = delivery.subject
        found = await self._js.api(f"STREAM.INFO.{self._stream}", {"subjects_filter": subject})
        if (found["state"].get("subjects") or {}).get(subject, 1) > 1:
            return False
        id = from_token(subject.rpartition(".")[2])
        try:
            return self._held(id) is None and await self._store.load(id) is None
        except (DecodeError, SignatureError):
            return False  # something is stored, whoever wrote it
