"""The last change of a task: completed, failed or cancelled, once."""

from __future__ import annotations

import time
from typing import Any

from genro_nats.errors import TaskCancelledError
from genro_nats.executor.local_tasks.clock import Clock
from genro_nats.executor.local_tasks.letters import Letters
from genro_nats.executor.local_tasks.outcome import Over
from genro_nats.executor.local_tasks.record import Record
from genro_nats.executor.local_tasks.store import Store
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.status import TaskState

__all__ = ["Settling"]


class Settling:
    """Settles records; all of it is called under the store's lock."""

    def __init__(self, store: Store, clock: Clock, letters: Letters) -> None:
        self._store = store
        self._clock = clock
        self._letters = letters

    def completed(self, record: Record, value: Any) -> None:
        """It returned ``value``."""
        record.value = value
        self._settle(record, TaskState.COMPLETED)

    def failed(self, record: Record, over: Over, text: str) -> None:
        """It failed for good; ``text`` is its error in the status."""
        record.error = over.error
        status = record.status
        letter = DeadLetter(
            status.id, record.request.name, over.reason, text, status.attempts, record.deaths, time.time()
        )
        self._letters.add(letter, record.request)
        self._settle(record, TaskState.FAILED, text)

    def cancelled(self, record: Record, reason: str) -> None:
        """Nobody wants it any more."""
        id = record.status.id
        record.error = TaskCancelledError(f"Task {id} was cancelled: {reason}.", task_id=id, reason=reason)
        self._settle(record, TaskState.CANCELLED, reason)

    def _settle(self, record: Record, state: TaskState, text: str = "") -> None:
        now = time.time()
        self._store.change(record, state, at=now, error=text)
        self._store.release(record, now + record.request.options.result_ttl)
        if record.timer is not None:
            self._clock.post(record.timer.cancel)
            record.timer = None
        if state is not TaskState.FAILED:  # a dead letter keeps its call
            record.request.call.drop_arguments()
        record.over.set()
