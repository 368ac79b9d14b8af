"""Tasks until they run: those that wait for their time, and those whose time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from genro_nats.errors import TaskFailedError
from genro_nats.executor.local_tasks.clock import Clock
from genro_nats.executor.local_tasks.outcome import Over
from genro_nats.executor.local_tasks.record import Record
from genro_nats.executor.local_tasks.settling import Settling
from genro_nats.executor.local_tasks.store import Store
from genro_nats.tasks.status import TaskState

__all__ = ["Waiting"]


class Waiting:
    """Lets tasks wait; ``kick()`` is called, under the store's lock, when one may be run."""

    def __init__(self, store: Store, clock: Clock, settling: Settling, kick: Callable[[], object]) -> None:
        self._store = store
        self._clock = clock
        self._settling = settling
        self._kick = kick

    def wait_for(self, record: Record) -> None:
        """A new record, or one that is tried again: let it be run when its time has come."""
        with self._store.lock:
            if record.status.state is TaskState.SCHEDULED:
                self._clock.post(self.arm, record)
            else:
                self.enqueue(record)

    def arm(self, record: Record) -> None:
        """Let it wait for a worker when it is due; called in the clock's loop."""
        if record.status.state is not TaskState.SCHEDULED:
            return
        seconds = max(0.0, record.due - time.time())
        record.timer = asyncio.get_running_loop().call_later(seconds, self._due, record)

    def _due(self, record: Record) -> None:
        with self._store.lock:
            if record.status.state is not TaskState.SCHEDULED:
                return
            if record.request.options.at is not None and time.time() < record.due - 0.001:
                self.arm(record)  # the clock was set back meanwhile
                return
            self._store.change(record, TaskState.PENDING, at=time.time())
            self.enqueue(record)

    def enqueue(self, record: Record, *, first: bool = False) -> None:
        """It waits for a worker now; under the store's lock."""
        self._store.queue(record, first=first)
        if record.request.options.expires is not None and not record.status.attempts:
            self._clock.post(self._arm_expiry, record, record.request.options.expires)
        self._kick()

    def _arm_expiry(self, record: Record, seconds: float) -> None:
        if record.status.state is TaskState.PENDING:
            record.timer = asyncio.get_running_loop().call_later(seconds, self._expire, record, seconds)

    def _expire(self, record: Record, seconds: float) -> None:
        with self._store.lock:
            begun = record.attempt is not None and record.attempt.claimed
            if record.status.state is not TaskState.PENDING or record.status.attempts or begun:
                return
            id = record.status.id
            reason = f"expired: it was not begun within {seconds:g} s of being due"
            error = TaskFailedError(f"Task {id} {reason}.", task_id=id, reason=reason)
            self._settling.failed(record, Over(reason, error), reason)
