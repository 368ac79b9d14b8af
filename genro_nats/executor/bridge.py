"""What crosses threads and async backends: a one-shot signal, and tasks of the present backend.

Nothing here imports trio unless trio is what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
from asyncio import events
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from genro_nats.codec.functions import label
from genro_nats.errors import CallTimeoutError, ExecutorError
from genro_nats.message import Call

__all__ = [
    "Signal",
    "Spawned",
    "backend",
    "caller_post",
    "context_elsewhere",
    "current_task",
    "has_ended",
    "is_cancellation",
    "running_loop",
    "runs_in",
    "spawn",
    "within",
    "within_deadline",
]

T = TypeVar("T")

running_loop = events._get_running_loop  # the loop of this thread, None without one


def backend() -> str:
    """ "asyncio" or "trio", whichever runs the present code; "" in a plain thread."""
    if _in_trio():
        return "trio"
    return "asyncio" if running_loop() is not None else ""


def runs_in(loop: asyncio.AbstractEventLoop) -> bool:
    """Is the present code asyncio code in that loop? (trio may run nested in its thread.) Cheap."""
    return running_loop() is loop and ("trio" not in sys.modules or not _in_trio())


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def current_task() -> Any:
    """The task that runs the present code, under asyncio or trio."""
    if _in_trio():
        import trio

        return trio.lowlevel.current_task()
    return asyncio.current_task()


def has_ended(task: Any) -> bool:
    """Will a task of either backend run no more? Its event loop may have ended before it did."""
    if isinstance(task, asyncio.Future):
        return task.done() or task.get_loop().is_closed()
    return inspect.getcoroutinestate(task.coro) == inspect.CORO_CLOSED


def is_cancellation(error: BaseException) -> bool:
    """Is it how a backend cancels a task?"""
    trio = sys.modules.get("trio")
    return isinstance(error, asyncio.CancelledError) or (
        trio is not None and isinstance(error, trio.Cancelled)
    )


def caller_post() -> Callable[..., object]:
    """A function ``post(f, *args)`` for other threads, which lets ``f(*args)`` run in the present event loop.

    Where no event loop runs, and once it has ended, ``post`` calls it on the spot or drops it.
    """
    if _in_trio():
        import trio

        return _dropping(trio.lowlevel.current_trio_token().run_sync_soon, trio.RunFinishedError)
    loop = running_loop()
    if loop is None:
        return lambda function, *args: function(*args)
    return _dropping(loop.call_soon_threadsafe, RuntimeError)


def _dropping(post: Callable[..., object], ended: type[Exception]) -> Callable[..., object]:
    def dropping(function: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(ended):
            post(function, *args)

    return dropping


def context_elsewhere() -> Context:
    """A copy of the present context for code that runs in another event loop or thread."""
    context = copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:  # else anyio would take the backend of here for that of there
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


class Signal:
    """An event that happens once. Any thread may set it; any number of tasks and threads may wait."""

    __slots__ = ("_lock", "_set", "_wakers")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._wakers: list[Callable[[], object]] = []

    @property
    def is_set(self) -> bool:
        """Has it happened?"""
        return self._set

    def set(self) -> None:
        """Let it happen: whoever waits goes on."""
        with self._lock:
            if self._set:
                return
            self._set = True
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    async def wait(self) -> None:
        """Wait for it under asyncio or trio; returns at once if it has happened."""
        if self._set:
            return
        if _in_trio():
            await self._wait_trio()
        else:
            await self._wait_asyncio()

    def wait_blocking(self, timeout: float | None = None) -> bool:
        """Wait for it in a plain thread; False after ``timeout`` seconds."""
        event = threading.Event()
        if self._add(event.set):
            event.wait(timeout)
            self._remove(event.set)
        return self._set

    async def _wait_asyncio(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if running_loop() is loop:
                _resolve(future)
            else:
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                    loop.call_soon_threadsafe(_resolve, future)

        if self._add(wake):
            try:
                await future
            finally:
                self._remove(wake)

    async def _wait_trio(self) -> None:
        import trio

        event, token = trio.Event(), trio.lowlevel.current_trio_token()

        def wake() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

        if self._add(wake):
            try:
                await event.wait()
            finally:
                self._remove(wake)

    def _add(self, waker: Callable[[], object]) -> bool:
        with self._lock:
            if not self._set:
                self._wakers.append(waker)
            return not self._set

    def _remove(self, waker: Callable[[], object]) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._wakers.remove(waker)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Spawned(Generic[T]):
    """A coroutine function's call that runs as a task of the present backend.

    Whatever it raises is kept for ``result``; nothing reaches the backend.
    ``done`` is set when it has ended.
    """

    def __init__(self) -> None:
        self.done = Signal()
        self._value: T
        self._error: BaseException | None = asyncio.CancelledError("cancelled before it began")
        self._cancel: Callable[[], object] = lambda: None

    def cancel(self) -> None:
        """Ask it to end; from any thread."""
        self._cancel()

    def result(self) -> T:
        """Its value once it is done; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._value

    async def _guard(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        try:
            self._value = await function(*args)
            self._error = None
        except BaseException as error:
            self._error = error
            if is_cancellation(error):
                raise  # trio insists on seeing it

    def _start_asyncio(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._guard(function, args))
        task.add_done_callback(lambda _: self.done.set())

        def cancel() -> None:
            if running_loop() is loop:
                task.cancel()
            else:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)

        self._cancel = cancel

    def _start_trio(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        import trio

        scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

        async def main() -> None:
            try:
                with scope:
                    await self._guard(function, args)
            finally:
                self.done.set()

        def cancel() -> None:
            if _in_trio():
                scope.cancel()
            else:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(scope.cancel)

        trio.lowlevel.spawn_system_task(main, context=copy_context())
        self._cancel = cancel


def spawn(function: Callable[..., Awaitable[T]], *args: Any) -> Spawned[T]:
    """Start ``function(*args)`` as a task of the present backend, with a copy of the present context."""
    spawned: Spawned[T] = Spawned()
    if _in_trio():
        spawned._start_trio(function, args)
    else:
        spawned._start_asyncio(function, args)
    return spawned


async def within_deadline(call: Call, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await ``function(*args)`` within what a call has left. Raises CallTimeoutError as ``within``."""
    return await within(call.timeout, label(call.function), function, *args, stated=call.stated)


async def within(
    seconds: float | None,
    what: str,
    function: Callable[..., Awaitable[T]],
    *args: Any,
    stated: float | None = None,
) -> T:
    """Await ``function(*args)`` for at most so many seconds; ``what`` names the call in the error.

    ``stated``: the seconds to name there, where these are what was left of them.

    Raises:
        CallTimeoutError: it was not done in time; it has been cancelled.
    """
    if seconds is None:
        return await function(*args)
    import anyio

    with anyio.move_on_after(seconds) as scope:
        return await function(*args)
    if not scope.cancelled_caught:
        raise ExecutorError(f"{what} ended without an outcome.")  # pragma: no cover - keeps the types honest
    limit = seconds if stated is None else stated
    raise CallTimeoutError(f"{what} was not done within {limit:g} s.", timeout=limit, function=what)
