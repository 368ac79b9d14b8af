"""Running a coroutine in another event loop, and a thread whose only work is such a loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from genro_nats.errors import ExecutorClosedError
from genro_nats.executor.bridge import Signal

__all__ = ["LoopThread", "Relay"]


class Relay:
    """One call of a coroutine function as a task of ``loop``, awaited from elsewhere.

    It runs in a copy of the caller's context. Whoever waits and is cancelled
    cancels it, without waiting for its end.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        self.done = Signal()
        self._loop = loop
        self._function = function
        self._args = args
        self._context = copy_context()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._value: Any = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Hand it to its loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            self.fail()

    def fail(self) -> None:
        """Its loop has ended and will never run it."""
        if not self.done.is_set:
            self._error = ExecutorClosedError("The event loop that the pool lived in has ended.")
            self.done.set()

    async def wait(self) -> Any:
        """Its outcome, awaited under asyncio or trio."""
        try:
            await self.done.wait()
        except BaseException:
            self.cancel()
            raise
        return self._outcome()

    def wait_blocking(self) -> Any:
        """Its outcome, awaited in a plain thread."""
        try:
            self.done.wait_blocking()
        except BaseException:
            self.cancel()
            raise
        return self._outcome()

    def cancel(self) -> None:
        """Cancel it, from any thread."""
        self._cancelled = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        if self._cancelled:
            self.done.set()
            return
        coroutine = self._function(*self._args)
        self._task = self._loop.create_task(coroutine, context=self._context)
        self._task.add_done_callback(self._finished)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.fail()  # the loop is being torn down, or nobody waits any more
            return
        self._error = task.exception()
        if self._error is None:
            self._value = task.result()
        self.done.set()

    def _outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class LoopThread:
    """An asyncio event loop in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs in the thread."""
        return self._loop

    def stop(self) -> None:
        """Let the loop end: its tasks are cancelled, its async generators closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)

    def join(self, timeout: float) -> None:
        """Wait for the thread's end for so many seconds."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._ready.set()
        await self._stopping.wait()
