"""The schedules of a pool: each run is a task of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from typing import Final

from genro_nats.executor.bridge import context_elsewhere
from genro_nats.executor.local_tasks.clock import Clock
from genro_nats.executor.local_tasks.cron import check, next_run, run_id
from genro_nats.executor.local_tasks.store import Store
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule, ScheduleSpec

__all__ = ["Recurring"]

_EARLY: Final = 0.001  # seconds by which a timer may be early
_LONGEST: Final = 3600.0  # seconds after which the wall clock is looked at again


class _Entry:
    """One schedule. ``call``: what it enqueues, as the request it was made with. ``due``: its next run."""

    def __init__(self, schedule: Schedule, call: TaskRequest, context: Context) -> None:
        self.schedule = schedule
        self.call = call
        self.context = context
        self.due = next_run(schedule.spec, schedule.created_at, schedule.created_at)
        self.timer: asyncio.TimerHandle | None = None
        self.removed = False

    def run(self) -> TaskRequest:
        """The task that is due."""
        id = run_id(self.schedule.name, self.due)
        return TaskRequest(self.call.call.again(), self.call.name, replace(self.call.options, id=id))

    def advance(self) -> None:
        """On to the next run; those that were missed, say while the machine slept, are left out."""
        self.due = next_run(self.schedule.spec, self.schedule.created_at, max(self.due, time.time()))


class Recurring:
    """``run(request, context)`` stores a task. Records are changed under the store's lock."""

    def __init__(self, store: Store, clock: Clock, run: Callable[[TaskRequest, Context], object]) -> None:
        self._lock = store.lock
        self._clock = clock
        self._run = run
        self._entries: dict[str, _Entry] = {}

    def put(self, name: str, spec: ScheduleSpec, request: TaskRequest) -> None:
        """Store one, or replace the one of that name. Raises ConfigurationError as ``check``."""
        check(spec)
        entry = _Entry(Schedule(name, spec, request.name, time.time()), request, context_elsewhere())
        with self._lock:
            self.remove(name)
            self._entries[name] = entry
            self._clock.post(self._arm, entry)

    def remove(self, name: str) -> bool:
        """Remove one; was it there?"""
        with self._lock:
            entry = self._entries.pop(name, None)
            if entry is not None:
                self._stop(entry)
            return entry is not None

    def list(self) -> list[Schedule]:
        """All of them, by name."""
        with self._lock:
            return [self._entries[name].schedule for name in sorted(self._entries)]

    def pause(self) -> None:
        """Run none of them, until ``resume``."""
        with self._lock:
            for entry in self._entries.values():
                self._stop(entry)

    def resume(self) -> None:
        """Run them again."""
        with self._lock:
            for entry in self._entries.values():
                entry.removed = False
                entry.advance()
                self._clock.post(self._arm, entry)

    def _stop(self, entry: _Entry) -> None:
        entry.removed = True
        if entry.timer is not None:
            self._clock.post(entry.timer.cancel)

    def _arm(self, entry: _Entry) -> None:
        if not entry.removed:
            seconds = min(max(0.0, entry.due - time.time()), _LONGEST)
            entry.timer = asyncio.get_running_loop().call_later(seconds, self._due, entry)

    def _due(self, entry: _Entry) -> None:
        with self._lock:
            if entry.removed:
                return
            if time.time() >= entry.due - _EARLY:
                self._run(entry.run(), entry.context)
                entry.advance()
            self._arm(entry)
