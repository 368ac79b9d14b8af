"""Kind ``async``: coroutine functions run in the caller's event loop, sync functions on threads beside it."""

from __future__ import annotations

import inspect
import os
from time import perf_counter
from typing import Any

from genro_nats.executor.admission import Slots
from genro_nats.executor.bridge import within_deadline
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.local_run import InlineSource, is_async, run_inline
from genro_nats.executor.pool_calls import shorten
from genro_nats.executor.thread import ThreadedPool
from genro_nats.executor.threads import ThreadSource
from genro_nats.message import Call

__all__ = ["AsyncExecutor"]


class AsyncExecutor(ThreadedPool):
    """Runs up to ``concurrency`` calls at a time; deadlines and cancelling reach into async functions.

    Async functions and generators run in the task that awaits them, under asyncio or
    trio. Sync ones run on ``max_workers`` threads (default: 4 more than there are CPUs, at
    most 32), as in ``ThreadExecutor``; the initializer runs once in each thread, and
    once before the first async call. ``shutdown(wait=False)`` leaves async calls to
    the tasks they run in.
    """

    kind = "async"

    def __init__(self, *args: Any, **stated: Any) -> None:
        super().__init__(*args, **stated)
        self._running = Slots(self.name, self.options.concurrency)

    @property
    def map_concurrency(self) -> int:
        """Calls that ``map`` keeps in flight unless told otherwise: all that run at a time."""
        return self.options.concurrency

    @property
    def task_slots(self) -> int:
        """Tasks that run at the same time, in an event loop beside the caller's."""
        return self.options.concurrency

    def _thread_count(self) -> int:
        return self.options.max_workers or min(32, (os.cpu_count() or 1) + 4)

    async def _run(self, call: Call) -> Any:
        waiter = self._running.try_take()
        if waiter is not None:
            begun = perf_counter()
            await within_deadline(call, self._running.wait, waiter)
            shorten(call, begun)
        try:
            return await self._run_nested(call)
        finally:
            self._running.release()

    async def _run_nested(self, call: Call) -> Any:
        if is_async(call.function):
            self._initialise()
            return await run_inline(call)
        return await self._open_threads().run(call)

    async def _source(self, call: Call) -> StreamSource:
        if inspect.isgeneratorfunction(call.function):
            return ThreadSource(self._open_threads(), call)
        self._initialise()
        return InlineSource(call)

    async def _open(self) -> None:
        self._initialise()
