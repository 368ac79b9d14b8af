"""All tasks of a pool: by id, by key, by state, and in the order in which they run. No I/O, no threads."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from genro_nats.errors import TaskNotFoundError
from genro_nats.executor.local_tasks.record import Record
from genro_nats.executor.local_tasks.room import Room
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.options import Priority
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.status import TaskState, TaskStatus, advance

__all__ = ["Store"]

_WAITING: Final = (TaskState.SCHEDULED, TaskState.PENDING)


class Store:
    """The records, and the one ``lock`` under which everything here is called."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.room = Room()
        self._records: dict[str, Record] = {}
        self._keys: dict[str, Record] = {}
        self._states: dict[TaskState, dict[str, Record]] = {state: {} for state in TaskState}
        self._queues: dict[Priority, deque[Record]] = {priority: deque() for priority in Priority}
        self._ends: list[tuple[float, str]] = []

    @property
    def waiting(self) -> int:
        """Tasks that wait for a time or for a worker."""
        return sum(len(self._states[state]) for state in _WAITING)

    @property
    def queued(self) -> bool:
        """Does any wait in a line?"""
        return any(self._queues.values())

    def get(self, id: str) -> Record:
        """The task of that id. Raises TaskNotFoundError."""
        found = self._records.get(id)
        if found is None:
            raise TaskNotFoundError(
                f"No task {id!r} is known here: it never was enqueued in this process, or its outcome was "
                "read or is older than its result_ttl.",
                task_id=id,
            )
        return found

    def twin(self, request: TaskRequest) -> Record | None:
        """The task that is there already: of the same id, or alive with the same key."""
        return self._records.get(request.id) or self._keys.get(request.options.key or "")

    def add(self, record: Record) -> None:
        """A new task."""
        id, key = record.status.id, record.request.options.key
        self._records[id] = record
        self._states[record.status.state][id] = record
        if key:
            self._keys[key] = record

    def change(self, record: Record, to: TaskState, **facts: Any) -> None:
        """Let it go to another state. Raises TaskError as ``advance``."""
        before = record.status.state
        self.show(record, advance(record.status, to, **facts))
        del self._states[before][record.status.id]
        self._states[to][record.status.id] = record
        if before in _WAITING and to not in _WAITING:
            self.room.freed()

    def progress(self, record: Record, update: ProgressUpdate) -> None:
        """Note how far it is."""
        self.show(record, replace(record.status, progress=update))

    def show(self, record: Record, status: TaskStatus) -> None:
        """This is its status now; whoever watches it hears of it."""
        record.status = status
        for watcher in record.watchers:
            watcher.put(status)

    def queue(self, record: Record, *, first: bool = False) -> None:
        """Let it wait for a worker, behind those of its priority, or before them."""
        line = self._queues[record.request.options.priority]
        if first:
            line.appendleft(record)
        else:
            line.append(record)

    def take_next(self) -> Record | None:
        """Take the one that runs next out of its line."""
        for line in self._queues.values():
            while line:
                record = line.popleft()
                if record.status.state is TaskState.PENDING:  # others were settled while they waited
                    return record
        return None

    def release(self, record: Record, kept_until: float) -> None:
        """It is settled: its key is free, and it is forgotten after that time (since the epoch)."""
        key = record.request.options.key
        if key and self._keys.get(key) is record:
            del self._keys[key]
        record.kept_until = kept_until
        heapq.heappush(self._ends, (kept_until, record.status.id))

    def forget(self, record: Record) -> None:
        """Know it no more."""
        id = record.status.id
        if self._records.get(id) is record:
            del self._records[id]
            del self._states[record.status.state][id]

    def forget_old(self, now: float) -> None:
        """Know no more what is older than its ``result_ttl``."""
        while self._ends and self._ends[0][0] <= now:
            record = self._records.get(heapq.heappop(self._ends)[1])
            if record is not None and record.status.settled and record.kept_until <= now:
                self.forget(record)

    def statuses(self, state: TaskState | None, limit: int) -> list[TaskStatus]:
        """The statuses of tasks of a state, those that came to it first first."""
        found = self._records if state is None else self._states[state]
        return [record.status for record in islice(found.values(), limit)]

    def unclaimed(self) -> list[Record]:
        """Those that wait and that nobody has begun to run."""
        found = [record for state in _WAITING for record in self._states[state].values()]
        return [record for record in found if record.attempt is None]
