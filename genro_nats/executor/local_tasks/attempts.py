"""Runs the tasks that are due, and settles them.

::

    due ─▶ queue ─▶ dispatch ─▶ admission ─▶ claim ─▶ the pool runs it ─▶ settle
                        ▲                                                  │
                        └──────────── retry, rerun after a death ──────────┘
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from genro_nats.executor.bridge import Signal, is_cancellation, spawn
from genro_nats.executor.local_run import is_async
from genro_nats.executor.local_tasks.clock import Clock
from genro_nats.executor.local_tasks.outcome import (
    Again,
    Cause,
    Over,
    cause_of,
    closed_reason,
    error_text,
    follows,
    pool_ended,
)
from genro_nats.executor.local_tasks.record import Attempt, Record
from genro_nats.executor.local_tasks.settling import Settling
from genro_nats.executor.local_tasks.store import Store
from genro_nats.executor.local_tasks.waiting import Waiting
from genro_nats.message import Call, ProgressUpdate, TaskRun
from genro_nats.tasks.status import TaskState

if TYPE_CHECKING:
    from genro_nats.executor.pool import Pool

__all__ = ["Attempts"]

_WATCH: Final = 1.0  # seconds between two looks at the loop that holds the children


class _Withdrawn(Exception):
    """It was settled before it began."""


class Attempts:
    """The attempts of one pool's tasks. Thread-safe: what changes records does it under the store's lock."""

    def __init__(self, pool: Pool, store: Store, clock: Clock, settling: Settling) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._settling = settling
        self.waiting = Waiting(store, clock, settling, self._kick)
        self._running: set[Record] = set()
        self._posted = False
        self._watching = False
        self._idle: list[Signal] = []
        self._slots = min(pool.task_slots, pool.options.max_pending)

    # -- running ------------------------------------------------------------

    def _kick(self) -> None:
        if self._store.queued and not self._posted and len(self._running) < self._slots:
            self._posted = True
            self._clock.post(self._dispatch)

    def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        with self._store.lock:
            self._posted = False
            while len(self._running) < self._slots and (record := self._store.take_next()) is not None:
                attempt = self._begin(record)
                main = self._main(record, attempt)
                task = loop.create_task(main, context=record.context.copy())
                record.stop = partial(self._clock.post, task.cancel)
            if self._pool.has_children and not self._watching and self._running:
                self._watching = True
                loop.call_later(_WATCH, self._watch)

    def _watch(self) -> None:
        """A loop that was closed without a word takes its children, and whoever waits for them, with it."""
        self._pool.check_home()
        self._watching = bool(self._running)
        if self._watching:
            asyncio.get_running_loop().call_later(_WATCH, self._watch)

    async def run_here(self, record: Record) -> None:
        """Run it where this is awaited, retries at once, until it is settled. Left early, it goes on."""
        record.here = True
        spawned = spawn(self._all_here, record)
        record.stop = spawned.cancel
        await spawned.done.wait()

    async def _all_here(self, record: Record) -> None:
        while not record.status.settled:
            with self._store.lock:
                attempt = self._begin(record)
            await self._main(record, attempt)

    def _begin(self, record: Record) -> Attempt:
        attempt = Attempt(
            TaskRun(record.status.id, record.status.attempts + 1, checkpointed=record.checkpoint)
        )
        attempt.run.on_checkpoint = partial(self._checkpoint, record, attempt)
        attempt.run.on_start = partial(self._started, record, attempt)
        record.attempt = attempt
        self._running.add(record)
        return attempt

    async def _main(self, record: Record, attempt: Attempt) -> None:
        call = record.request.call.again()
        call.task = attempt.run
        call.on_progress = partial(self._progress, record, attempt)
        try:
            value = await self._pool.run_task(call, partial(self._claim, record, attempt))
        except BaseException as error:
            self._ended(record, attempt, partial(self._raised, record, call, error))
            if is_cancellation(error):
                raise
        else:
            self._ended(record, attempt, partial(self._returned, record, value))

    # -- what comes from a running one --------------------------------------

    def _claim(self, record: Record, attempt: Attempt) -> None:
        with self._store.lock:
            if record.status.settled or record.attempt is not attempt:
                raise _Withdrawn
            attempt.claimed = True
            if not self._pool.has_children:
                self._started(record, attempt, os.getpid())

    def _started(self, record: Record, attempt: Attempt, pid: int | None) -> None:
        with self._store.lock:
            status = record.status
            if record.attempt is not attempt or status.settled:
                return
            if status.state is TaskState.RUNNING:  # taken back, and given to another child
                self._store.show(record, replace(status, pid=pid))
                return
            self._store.change(record, TaskState.RUNNING, at=time.time(), worker=self._pool.name, pid=pid)

    def _progress(self, record: Record, attempt: Attempt, update: ProgressUpdate) -> None:
        with self._store.lock:
            if record.attempt is not attempt or record.status.state is not TaskState.RUNNING:
                return
            self._store.progress(record, update)
            listener = record.request.call.on_progress
        if listener is not None:
            listener(update)

    def _checkpoint(self, record: Record, attempt: Attempt, pickled: bytes) -> None:
        with self._store.lock:
            if record.attempt is attempt:
                record.checkpoint = pickled

    # -- settling -----------------------------------------------------------

    def _ended(self, record: Record, attempt: Attempt, follow: Callable[[], object]) -> None:
        with self._store.lock:
            if record.cancelling and not record.status.settled:
                self._settling.cancelled(record, "it was cancelled while it ran")
            elif not record.status.settled:
                follow()
            if record.attempt is attempt:
                record.attempt = None
            self._running.discard(record)
            self._kick()
            if not self._running:
                signals, self._idle = self._idle, []
                for signal in signals:
                    signal.set()

    def _returned(self, record: Record, value: Any) -> None:
        self._begun(record)
        self._settling.completed(record, value)

    def _raised(self, record: Record, call: Call, error: BaseException) -> None:
        if self._pool.closing and (pool_ended(error) or is_cancellation(error)):
            self._settling.cancelled(record, closed_reason(self._pool.name))
        elif is_cancellation(error):
            self._settling.cancelled(record, "the event loop that ran it ended")
        else:
            self._begun(record)
            self._failed(record, cause_of(error, call, has_children=self._pool.has_children))

    def _begun(self, record: Record) -> None:
        """It failed or ended before a child was seen to take it: that was an attempt too."""
        if record.status.state is not TaskState.RUNNING and record.attempt is not None:
            self._started(record, record.attempt, None)

    def _failed(self, record: Record, cause: Cause) -> None:
        record.deaths += cause.death
        record.moves += cause.move
        record.failures += not (cause.death or cause.move)
        options = record.request.options
        verdict = follows(
            cause,
            options.policy,
            task_id=record.status.id,
            failures=record.failures,
            deaths=record.deaths,
            moves=record.moves,
            draw=random.random(),
        )
        text = error_text(cause.error)
        if isinstance(verdict, Over):
            self._settling.failed(record, verdict, text)
        elif self._pool.closing:
            self._settling.cancelled(
                record, f"{closed_reason(self._pool.name)}, before it was tried again after {text}"
            )
        else:
            self._again(record, verdict, text, first=cause.death)

    def _again(self, record: Record, verdict: Again, text: str, *, first: bool) -> None:
        now = time.time()
        record.due = now + verdict.delay
        if verdict.delay and not record.here:
            self._store.change(record, TaskState.SCHEDULED, at=now, error=text, next_retry_at=record.due)
            self._clock.post(self.waiting.arm, record)
            return
        self._store.change(record, TaskState.PENDING, at=now, error=text)
        if not record.here:
            self.waiting.enqueue(record, first=first)

    # -- ending early -------------------------------------------------------

    def cancel(self, record: Record) -> None:
        """Cancel it: now if it waits, else by asking and then by force. ``record.over`` tells of the end."""
        with self._store.lock:
            if record.status.settled:
                return
            attempt, stop = record.attempt, record.stop
            if attempt is None or not attempt.claimed:
                self._settling.cancelled(record, "it was cancelled before it began")
            else:
                record.cancelling = True
        if attempt is None:
            return
        attempt.run.ask()
        if not attempt.claimed or (not self._pool.has_children and is_async(record.request.call.function)):
            stop()
        else:
            self._clock.post(self._insist, stop)

    def _insist(self, stop: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(self._pool.options.cancel_grace, stop)

    async def end_all(self) -> None:
        """End what still runs, and wait for it."""
        with self._store.lock:
            if not self._running:
                return
            running = list(self._running)
            idle = Signal()
            self._idle.append(idle)
        for record in running:
            if record.attempt is not None:
                record.attempt.run.ask()
            record.stop()
        await idle.wait()
