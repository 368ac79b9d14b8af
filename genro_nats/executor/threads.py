"""Threads that run calls for event loops: a stdlib pool, awaited natively under asyncio and trio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from genro_nats.codec.functions import not_a_generator
from genro_nats.config import PoolOptions
from genro_nats.errors import ExecutorError
from genro_nats.executor.admission import closed_error
from genro_nats.executor.bridge import Signal, caller_post, within
from genro_nats.executor.false_end import no_false_end
from genro_nats.executor.local_run import describe, entered, outcome_error, run_initializer
from genro_nats.message import Call, CallContext

__all__ = ["ThreadSource", "Threads"]


class _Job:
    """One function on one thread, and whoever awaits it. ``context`` is what current_call() shows there."""

    def __init__(self, work: Callable[[], Any], context: CallContext, name: str) -> None:
        self.done = Signal()
        self.future: Future[Any] | None = None
        self._name = name
        self._work = work
        self._call = context
        self._context = copy_context()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """In the thread: run it to its end."""
        try:
            value = self._context.run(self._outcome)
        except BaseException as error:
            self._settle(None, outcome_error(error))
        else:
            self._settle(value, None)

    def _outcome(self) -> Any:
        with entered(self._call):
            value = self._work()
            return asyncio.run(self._awaited(value)) if inspect.isawaitable(value) else value

    async def _awaited(self, value: Any) -> Any:
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._call.cancelled and inspect.iscoroutine(value):
            value.close()
            raise asyncio.CancelledError
        return await value

    def give_up(self) -> None:
        """The caller has gone: never begin, cancel an async function, tell a sync one."""
        self._call.cancel()
        if self.future is not None:
            self.future.cancel()
        with self._lock, contextlib.suppress(RuntimeError):
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def end(self, error: BaseException) -> None:
        """End the wait with an error; the function is given up."""
        self._settle(None, error)
        self.give_up()

    def _settle(self, value: Any, error: BaseException | None) -> None:
        with self._lock:
            if not self.done.is_set:
                self._value, self._error = value, error
        self.done.set()

    def take(self) -> Any:
        """The value, or what was raised."""
        error, self._error = self._error, None
        if isinstance(error, asyncio.CancelledError):
            raise ExecutorError(f"{self._name} cancelled itself.") from error
        if error is not None:
            raise error
        return self._value


class Threads:
    """``count`` threads of a pool; each runs the pool's initializer once, before its first call."""

    def __init__(self, name: str, options: PoolOptions, count: int) -> None:
        self._name = name
        self._jobs: set[_Job] = set()
        self._pool = ThreadPoolExecutor(
            count, thread_name_prefix=name, initializer=partial(self._initialise, options)
        )
        self._failure: BaseException | None = None
        self._pid = os.getpid()

    def _initialise(self, options: PoolOptions) -> None:
        try:
            run_initializer(self._name, options)
        except BaseException as error:
            self._failure = error
            failure = self._failed(error)
            for job in list(self._jobs):
                job.end(failure)

    def _failed(self, error: BaseException) -> ExecutorError:
        failure = ExecutorError(
            f"The initializer of pool {self._name!r} raised {type(error).__name__}: {error}",
            executor=self._name,
        )
        failure.__cause__ = error
        return failure

    @property
    def failed(self) -> bool:
        """Has an initializer failed? Then these threads run nothing more."""
        return self._failure is not None

    @property
    def inherited(self) -> bool:
        """Were they made in the process that this one was forked from? None of them runs here."""
        return self._pid != os.getpid()

    async def run(self, call: Call) -> Any:
        """Run a call's function on a thread and await it.

        Raises CallTimeoutError at the deadline; the thread is free only once the function returns.
        """
        work = partial(call.function, *call.args, **call.kwargs)
        listener = call.on_progress
        if listener is None:
            return await self.step(work, describe(call), call.timeout, call.stated)
        post = caller_post()
        call.on_progress = partial(post, listener)
        context = describe(call)
        try:
            value = await self.step(work, context, call.timeout, call.stated)
        finally:
            context.flush_progress()
        # What the thread posted comes before the value, also when the value was there at once.
        told = Signal()
        post(told.set)
        await told.wait()
        return value

    async def step(
        self,
        work: Callable[[], Any],
        context: CallContext,
        timeout: float | None,
        stated: float | None = None,
    ) -> Any:
        """Run ``work()`` on a thread as part of the call that ``context`` describes; times as of ``within``."""
        job = _Job(work, context, context.function)
        self._jobs.add(job)
        try:
            if self._failure is not None:
                raise self._failed(self._failure)
            job.future = self._submitted(job)
            await within(timeout, context.function, job.done.wait, stated=stated)
        except BaseException:
            job.give_up()
            raise
        finally:
            self._jobs.discard(job)
        return job.take()

    def post(self, work: Callable[[], object]) -> None:
        """Run ``work()`` on a thread; nobody waits for it."""
        with contextlib.suppress(BrokenExecutor, RuntimeError):
            self._pool.submit(work)

    def _submitted(self, job: _Job) -> Future[Any]:
        try:
            return self._pool.submit(job.run)
        except (BrokenExecutor, RuntimeError) as error:
            raise closed_error(self._name) from error

    async def aclose(self, wait: bool) -> None:
        """End the threads once they are idle; without ``wait`` callers get ExecutorClosedError now."""
        if self.inherited:
            return
        self._pool.shutdown(wait=False, cancel_futures=not wait)
        if not wait:
            for job in list(self._jobs):
                job.end(closed_error(self._name))
            return
        ended = Signal()

        def join() -> None:
            self._pool.shutdown(wait=True)
            ended.set()

        threading.Thread(target=join, daemon=True).start()
        await ended.wait()


class ThreadSource:
    """The items of a generator that is stepped on threads. Its caller waits for each step."""

    def __init__(self, threads: Threads, call: Call) -> None:
        self._threads = threads
        self._call = call
        if call.on_progress is not None:
            call.on_progress = partial(caller_post(), call.on_progress)
        self._context = describe(call)
        self._items: Iterator[Any] | None = None
        self._lock = threading.Lock()
        self._left = False

    async def receive(self) -> Any:
        """The next item. Raises StopAsyncIteration at the end, or what the generator raised."""
        seconds = None if self._call.timeout is None else self._context.remaining
        with no_false_end():
            item = await self._threads.step(self._next, self._context, seconds, self._call.stated)
        if item is self:
            raise StopAsyncIteration
        return item

    def _next(self) -> Any:
        with self._lock:
            if self._left:
                return self
            if self._items is None:
                self._items = _as_iterator(self._call.function(*self._call.args, **self._call.kwargs))
            try:
                return next(self._items, self)
            finally:
                if self._context.cancelled:
                    self._close()

    def _close(self) -> None:
        self._left = True
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

    def _leave(self) -> None:
        with self._lock:
            self._close()

    async def aclose(self) -> None:
        """Stop the generator, on a thread."""
        if self._items is not None and not self._left:
            await self._threads.step(self._leave, self._context, None)

    def abort(self) -> None:
        """Stop the generator soon: after the step that runs, if one does."""
        self._context.cancel()
        if self._items is not None and not self._left:
            self._threads.post(self._leave)


def _as_iterator(produced: Any) -> Iterator[Any]:
    if hasattr(produced, "__next__"):
        return produced  # type: ignore[no-any-return]
    if hasattr(produced, "__anext__"):
        return _stepped(produced)
    if inspect.iscoroutine(produced):
        produced.close()
    raise not_a_generator(produced)


def _stepped(items: AsyncIterator[Any]) -> Iterator[Any]:
    """The items of an async generator, which gets an event loop of its own."""

    async def step() -> Any:
        return await anext(items, _END)

    with asyncio.Runner() as runner:
        try:
            while (item := runner.run(step())) is not _END:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                runner.run(_awaited(close()))


async def _awaited(value: Any) -> Any:
    return await value


_END = object()
