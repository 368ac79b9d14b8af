"""Keeps the tasks of a local pool in memory: the TaskBackend of every kind but nats."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextvars import Context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from genro_nats.errors import CallTimeoutError, ExecutorError, ExecutorOverloadError, TaskError
from genro_nats.executor.admission import RETRY_AFTER, closed_error
from genro_nats.executor.bridge import Signal, caller_post, context_elsewhere, within
from genro_nats.executor.local_tasks.attempts import Attempts
from genro_nats.executor.local_tasks.clock import Clock
from genro_nats.executor.local_tasks.letters import Letters
from genro_nats.executor.local_tasks.outcome import closed_reason
from genro_nats.executor.local_tasks.record import Record
from genro_nats.executor.local_tasks.recurring import Recurring
from genro_nats.executor.local_tasks.settling import Settling
from genro_nats.executor.local_tasks.store import Store
from genro_nats.executor.local_tasks.watch import LocalWatch
from genro_nats.message import in_child, running_call
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule, ScheduleSpec
from genro_nats.tasks.status import TaskState, TaskStatus

if TYPE_CHECKING:
    from genro_nats.executor.pool import Pool

__all__ = ["LocalTasks"]

_END: float = 1.0  # seconds that attempts get to end when their pool has


class LocalTasks:
    """The tasks of one pool; they live as long as this process, and can be reached from any of its threads.

    Tasks run in the pool as its calls do, as many at a time as it has workers. In a pool that
    runs calls where they are made (kind inline, bypass) a task without delay runs inside
    ``enqueue``, its retries without waiting, and is settled when that returns. When the
    pool is shut down, tasks that wait are cancelled: nobody would ever run them.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._clock = Clock(self, pool.name)
        self._store = Store()
        self._letters = Letters()
        self._settling = Settling(self._store, self._clock, self._letters)
        self._attempts = Attempts(pool, self._store, self._clock, self._settling)
        self._recurring = Recurring(self._store, self._clock, self._run_scheduled)

    @property
    def inherited(self) -> bool:
        """Were they kept by the process that this one was forked from?"""
        return self._clock.pid != os.getpid()

    # -- coming in ----------------------------------------------------------

    async def enqueue(self, request: TaskRequest) -> str:
        """Keep a task: see ``TaskBackend``. The caller's loop becomes the pool's home, if it has none."""
        await self._pool.prepare()
        here = self._pool.runs_inline and _due(request) is None
        self._make_ready(request, here=here)
        woken = False
        while True:
            with self._store.lock:
                place = self._place(request, woken=woken)
                if place is None:
                    record, new = self._take_in(request, context_elsewhere(), here=here)
                    break
            await self._wait_for_room(place)
            woken = True
        if new and here:
            await self._attempts.run_here(record)
        return record.status.id

    def _make_ready(self, request: TaskRequest, *, here: bool) -> None:
        """Fix the arguments as they are now, and say early what can't be sent."""
        call = request.call
        if call.on_progress is not None and not here:
            call.on_progress = partial(caller_post(), call.on_progress)
        if self._pool.has_children:
            from genro_nats.executor.wire import CallEncoder, pack

            encoder = CallEncoder(self._pool.options.codec, self._pool.name, by=self._pool.options.by)
            encoder.check_function(call)
            pack(call, encoder.codec)
        elif not here and in_child() and self._pool.runs_inline:
            raise ExecutorError(
                f"Executor '{self._pool.name}' keeps its tasks in memory, and this process is a pool's child "
                "that may be replaced any time: a delayed task would be lost. Enqueue it in the main program."
            )

    def _place(self, request: TaskRequest, *, woken: bool) -> Signal | None:
        """A place in the line where the pool is full; None: it may come in. ``woken``: it was the first."""
        if self._pool.closing:
            raise closed_error(self._pool.name)
        self._store.forget_old(time.time())
        options = self._pool.options
        room, waiting = self._store.room, self._store.waiting
        if options.max_queued is None:
            return None
        if self._store.twin(request) is not None:
            if woken:
                room.freed()  # the place that it was offered is another's
            return None
        if waiting < options.max_queued and (woken or not room):
            return None
        if options.overload == "fail":
            raise ExecutorOverloadError(
                f"Executor '{self._pool.name}' has {waiting} queued tasks; max_queued is "
                f"{options.max_queued}.",
                executor=self._pool.name,
                max_queued=options.max_queued,
                retry_after=RETRY_AFTER,
            )
        return room.join(first=woken)

    async def _wait_for_room(self, place: Signal) -> None:
        try:
            await place.wait()
        except BaseException:
            with self._store.lock:
                self._store.room.leave(place)
            raise

    def _take_in(self, request: TaskRequest, context: Context, *, here: bool = False) -> tuple[Record, bool]:
        """The task's record; is it new?"""
        twin = self._store.twin(request)
        if twin is not None:
            return twin, False
        now = time.time()
        due = _due(request)
        state = TaskState.PENDING if due is None else TaskState.SCHEDULED
        context.run(running_call.set, None)  # what it calls is no part of the call that enqueued it
        record = Record(request, TaskStatus(request.id, state, now), context, due or now)
        self._store.add(record)
        if not here:
            self._attempts.waiting.wait_for(record)
        return record, True

    def _run_scheduled(self, request: TaskRequest, context: Context) -> None:
        if not self._pool.closing:
            self._take_in(request, context.copy())

    async def enqueue_many(self, requests: Sequence[TaskRequest]) -> list[str | ExecutorError]:
        """Keep many: for each, in order, what ``enqueue`` gives or raises."""
        return [await self._one_of_many(request) for request in requests]

    async def _one_of_many(self, request: TaskRequest) -> str | ExecutorError:
        try:
            return await self.enqueue(request)
        except ExecutorError as error:
            return error

    # -- one task -----------------------------------------------------------

    def _get(self, id: str) -> Record:
        with self._store.lock:
            self._store.forget_old(time.time())
            return self._store.get(id)

    async def status(self, id: str) -> TaskStatus:
        """What is known of it now. Raises TaskNotFoundError."""
        return self._get(id).status

    async def result(self, id: str, timeout: float | None) -> Any:
        """Its value once it is completed: see ``TaskHandle.result``."""
        record = self._get(id)
        if not record.over.is_set:
            await within(timeout, f"Task {id}", record.over.wait)
        if not record.request.options.keep_result:
            with self._store.lock:
                self._store.forget(record)
        if record.error is not None:
            raise record.error
        return record.value

    async def cancel(self, id: str, timeout: float) -> bool:
        """Cancel it: see ``TaskHandle.cancel``."""
        record = self._get(id)
        self._attempts.cancel(record)
        try:
            await within(timeout, f"Task {id}", record.over.wait)
        except CallTimeoutError:
            return False
        return record.status.state is TaskState.CANCELLED

    async def watch(self, id: str) -> LocalWatch:
        """Its statuses from now on. Raises TaskNotFoundError."""
        with self._store.lock:
            return LocalWatch(self._get(id))

    async def tasks(self, state: TaskState | None, limit: int) -> list[TaskStatus]:
        """Tasks of a state, those that came to it first first."""
        with self._store.lock:
            self._store.forget_old(time.time())
            return self._store.statuses(state, limit)

    # -- schedules and dead letters -----------------------------------------

    async def schedule(self, name: str, spec: ScheduleSpec, request: TaskRequest) -> None:
        """Store a schedule, or replace the one of that name."""
        await self._pool.prepare()
        self._make_ready(request, here=False)
        self._recurring.put(name, spec, request)

    async def schedules(self) -> list[Schedule]:
        """All schedules, by name."""
        return self._recurring.list()

    async def unschedule(self, name: str) -> bool:
        """Remove a schedule; was there one?"""
        return self._recurring.remove(name)

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Dead letters, the oldest first."""
        with self._store.lock:
            return self._letters.oldest(limit)

    async def replay(self, id: str) -> str:
        """Enqueue a dead letter's call as a new task, and drop the letter. Raises TaskNotFoundError."""
        with self._store.lock:
            request = self._letters.get(id)
        options = replace(request.options, id=None, delay=None, at=None)
        fresh = TaskRequest(request.call.again(), request.name, options)
        new = await self.enqueue(fresh)
        if new != fresh.id:
            raise TaskError(
                f"The dead letter {id!r} has the key {options.key!r}, which another task has that waits "
                "or runs: replay it once that one is settled, or drop it.",
                task_id=id,
            )
        with self._store.lock:
            self._letters.drop(id)
        return new

    async def drop(self, id: str) -> bool:
        """Remove a dead letter; was there one?"""
        with self._store.lock:
            return self._letters.drop(id)

    # -- the pool's life ----------------------------------------------------

    def withdraw(self) -> None:
        """The pool closes: what waits is cancelled, who waits for room hears of it."""
        self._recurring.pause()
        with self._store.lock:
            for record in self._store.unclaimed():
                self._settling.cancelled(record, closed_reason(self._pool.name))
            self._store.room.all_freed()

    def reopen(self) -> None:
        """The pool opens again: so do its schedules."""
        self._recurring.resume()

    async def aclose(self) -> None:
        """The pool has ended: so does what is left. What is known of tasks can still be asked."""
        with anyio.move_on_after(_END):
            await self._attempts.end_all()
        self._clock.stop()


def _due(request: TaskRequest) -> float | None:
    """When it is to run, in seconds since the epoch; None: now."""
    options = request.options
    if options.due_at is not None:
        return options.due_at
    return time.time() + options.delay if options.delay else None
