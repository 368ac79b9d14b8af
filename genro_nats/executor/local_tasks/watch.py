"""The statuses of one task on their way to one watcher, in whatever event loop that is."""

from __future__ import annotations

import threading
from collections import deque

from genro_nats.executor.bridge import Signal
from genro_nats.executor.local_tasks.record import Record
from genro_nats.tasks.status import TaskStatus

__all__ = ["LocalWatch"]


class LocalWatch:
    """A StatusSource. Of progress that comes faster than it is taken only the last is kept."""

    def __init__(self, record: Record) -> None:
        """Call it under the store's lock, which orders it among the changes."""
        self._record = record
        self._lock = threading.Lock()
        self._waiting: deque[TaskStatus] = deque([record.status])
        self._arrived = Signal()
        self._ended = False
        record.watchers.append(self)

    def put(self, status: TaskStatus) -> None:
        """It has changed."""
        with self._lock:
            last = self._waiting[-1] if self._waiting else None
            if last is not None and (last.state, last.attempts) == (status.state, status.attempts):
                self._waiting[-1] = status
            else:
                self._waiting.append(status)
            arrived = self._arrived
        arrived.set()

    async def receive(self) -> TaskStatus:
        """The next one. Raises StopAsyncIteration after a settled one."""
        while True:
            with self._lock:
                if self._ended:
                    raise StopAsyncIteration
                if self._waiting:
                    status = self._waiting.popleft()
                    self._ended = status.settled
                    return status
                arrived = self._arrived = Signal()
            await arrived.wait()

    async def aclose(self) -> None:
        """Watch no longer."""
        with self._lock:
            self._ended = True
            arrived = self._arrived
        arrived.set()
        if self in self._record.watchers:
            self._record.watchers.remove(self)
