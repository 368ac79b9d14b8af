"""What all kinds of this package share: admission, books, nesting, life.

::

    invoke ─▶ called inside its own pool? ──▶ run here
           └▶ admission ─▶ books ─▶ _run (the kind) ─▶ books ─▶ the caller
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from genro_nats.codec.functions import label, stable_name, unwrap
from genro_nats.config import PoolOptions, bypass_from_env
from genro_nats.errors import CallTimeoutError, ExecutorError, ExecutorOverloadError
from genro_nats.executor.admission import Slots, Waiter, closed_error
from genro_nats.executor.base import NO_OPTIONS, BaseExecutor
from genro_nats.executor.booked import BookedSource
from genro_nats.executor.bridge import Signal, within_deadline
from genro_nats.executor.carry import Carrier
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.ledger import Ledger
from genro_nats.executor.local_run import (
    InlineSource,
    guarded,
    is_async,
    is_generator,
    run_initializer,
    run_inline,
    run_inline_blocking,
)
from genro_nats.executor.stream import Stream
from genro_nats.message import Call, CallContext, CallOptions, running_call
from genro_nats.tasks.backend import TaskBackend
from genro_nats.tasks.options import TaskOptions
from genro_nats.tasks.request import OWNER, TaskRequest

if TYPE_CHECKING:
    from genro_nats.executor.local_tasks.backend import LocalTasks

__all__ = ["Pool"]


class Pool(BaseExecutor):
    """A kind implements ``_run`` and ``_source``, and what it needs of ``_open``, ``_close``, ``_facts``.

    ``options`` may be given as a PoolOptions, or one by one as keywords. Each pool
    starts at its first call, and a call after ``shutdown`` raises ExecutorClosedError
    until ``start`` opens it again.
    """

    def __init__(self, name: str = "default", options: PoolOptions | None = None, **stated: Any) -> None:
        """Raises ConfigurationError for an unknown option or a wrong value."""
        if options is None:
            options = PoolOptions.build(self.kind, stated, name=name)
        elif stated:
            raise TypeError("pass either a PoolOptions or single options, not both")
        self.name = name
        self.options = options
        self._bypassed = options.bypass or bypass_from_env()
        self._lock = threading.Lock()
        self._slots = Slots(name, options.max_pending, may_wait=options.overload == "wait")
        self._ledger = Ledger()
        self._streams: WeakSet[BookedSource] = WeakSet()
        self._carrier = Carrier(options.carry) if options.carry else None
        self._closing: Signal | None = None
        self._initialised = options.initializer is None
        self._names: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()
        self._owner = os.urandom(OWNER // 2).hex()
        self._tasks: LocalTasks | None = None

    @property
    def address(self) -> str:
        """The subject that the pool's workers serve; "" for local kinds."""
        return ""

    @property
    def map_concurrency(self) -> int:
        """Calls that ``map`` keeps in flight unless told otherwise: two per worker."""
        return 2 * self.options.workers

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures of the pool; submitted = completed + failed + pending.

        ``cancelled`` and ``timed_out`` calls are among the failed ones; ``rejected`` calls
        (overload) and those ``waiting`` for admission are not among the submitted ones.
        """
        mode = "bypass" if self._bypassed else self.kind
        books = self._ledger.facts()
        return {"name": self.name, "mode": mode, **books, "waiting": self._slots.waiting, **self._facts()}

    # -- what a kind does ---------------------------------------------------

    @abstractmethod
    async def _run(self, call: Call) -> Any:
        """Run an admitted call, starting what is needed first."""

    @abstractmethod
    async def _source(self, call: Call) -> StreamSource:
        """The items of an admitted call."""

    async def _open(self) -> None:
        """Start, unless started. May be called at the same time from several threads and tasks."""

    async def _close(self, wait: bool) -> None:
        """End; no call is pending if ``wait``. Not called twice without ``_open`` between."""

    def _facts(self) -> dict[str, Any]:
        return {}

    def _is_inside(self, context: CallContext) -> bool:
        """Is the running call one of this pool's?"""
        return context.pool == self.name and not context.address

    async def _run_nested(self, call: Call) -> Any:
        """Run a call that was made inside this pool: waiting for a slot of it could wait for ever."""
        return await run_inline(call, self.address)

    async def _run_here(self, call: Call) -> Any:
        self._initialise()
        return await run_inline(call, self.address)

    def _initialise(self) -> None:
        """The initializer, once, for a pool that runs calls in this process."""
        if not self._initialised:
            with self._lock:
                if not self._initialised:
                    run_initializer(self.name, self.options)
                    self._initialised = True

    # -- calls --------------------------------------------------------------

    async def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run ``function(*args, **kwargs)`` in the pool: see ``BaseExecutor.submit``."""
        return await self.invoke(function, args, kwargs, NO_OPTIONS)

    async def invoke(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        """``submit`` with the options of one call."""
        context = running_call.get()
        call = self._called(function, args, kwargs, options, context)
        self._refuse_generator(call)
        if context is not None and self._is_inside(context):
            return await self._run_nested(call)
        await self._admit(call)
        return await self._booked(call)

    async def _booked(self, call: Call) -> Any:
        """Run an admitted call, and write its end into the books."""
        begun = perf_counter()
        try:
            value = await (self._run_here(call) if self._bypassed else self._run(call))
        except BaseException as error:
            self._ledger.fail(error)
            raise
        else:
            self._ledger.complete(perf_counter() - begun)
        finally:
            self._slots.release()
        return value

    def invoke_blocking(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        """``invoke`` for a plain thread; what runs inline there anyway runs without an event loop."""
        context = running_call.get()
        inside = context is not None and self._is_inside(context)
        if (inside or self._is_inline()) and not is_async(unwrap(function)):
            call = self._called(function, args, kwargs, options, context)
            self._refuse_generator(call)
            return run_inline_blocking(call, self.address) if inside else self._block_here(call)
        return super().invoke_blocking(function, args, kwargs, options)

    def _is_inline(self) -> bool:
        """Do calls run in the thread that makes them?"""
        return self._bypassed

    @property
    def runs_inline(self) -> bool:
        """Do calls run where they are made?"""
        return self._is_inline()

    @property
    def has_children(self) -> bool:
        """Do calls run in other processes, which may die?"""
        return False

    def _block_here(self, call: Call) -> Any:
        self._require_plain_thread(call.function)
        if (waiter := self._take()) is not None:
            self._slots.wait_blocking(waiter, call.timeout, label(call.function))
        self._ledger.begin()
        begun = perf_counter()
        try:
            self._initialise()
            value = run_inline_blocking(call, self.address)
        except BaseException as error:
            self._ledger.fail(error)
            raise
        else:
            self._ledger.complete(perf_counter() - begun)
        finally:
            self._slots.release()
        return value

    def invoke_stream(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Stream[Any]:
        """``stream`` with the options of one call."""
        return Stream(partial(self._begin_stream, function, args, kwargs, options))

    async def _begin_stream(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> StreamSource:
        context = running_call.get()
        call = self._called(function, args, kwargs, options, context)
        if context is not None and self._is_inside(context):
            return InlineSource(call, self.address)
        await self._admit(call)
        try:
            source = await self._source_here(call) if self._bypassed else await self._source(call)
        except BaseException as error:
            self._ledger.fail(error)
            self._slots.release()
            raise
        booked = BookedSource(self.name, source, self._ledger, self._slots)
        with self._lock:
            self._streams.add(booked)
        return booked

    async def _source_here(self, call: Call) -> StreamSource:
        self._initialise()
        return InlineSource(call, self.address)

    # -- tasks --------------------------------------------------------------

    @property
    def task_slots(self) -> int:
        """Tasks that run at the same time, where this process keeps them."""
        return self.options.workers

    @property
    def task_backend(self) -> TaskBackend:
        """Who keeps this pool's tasks: this process, in memory."""
        if self.address and not self._bypassed:
            return super().task_backend
        tasks = self._tasks
        if tasks is None or tasks.inherited:
            from genro_nats.executor.local_tasks.backend import LocalTasks

            with self._lock:
                if self._tasks is tasks:
                    self._tasks = LocalTasks(self)
                tasks = self._tasks
        assert tasks is not None
        return tasks

    @property
    def closing(self) -> bool:
        """Was it shut down, or is it being so?"""
        return self._closing is not None

    def check_home(self) -> None:
        """End what waits for an event loop that has gone (for kinds whose calls live in one)."""

    async def prepare(self) -> None:
        """``start``, but for a pool that was shut down: raises ExecutorClosedError."""
        if self._closing is not None:
            raise closed_error(self.name)
        await self._ready()

    async def run_task(self, call: Call, begin: Callable[[], object]) -> Any:
        """The value of a task's call. It waits for admission without limit, then ``begin()`` is called.

        What ``begin`` raises ends it.
        """
        context = running_call.get()
        if context is not None and self._is_inside(context):
            begin()
            return await self._run_nested(call)
        await self._slots.take(patient=True)
        try:
            begin()
        except BaseException:
            self._slots.release()
            raise
        self._ledger.begin()
        return await self._booked(call)

    def task_request(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        task_options: TaskOptions,
        name: str = "",
    ) -> TaskRequest:
        """A task for the backend: see ``BaseExecutor.task_request``."""
        call = self._called(function, args, kwargs, options, running_call.get())
        self._refuse_generator(call)
        stable = self._stable_name(call.function, name, task_options.by_value)
        return TaskRequest(call, stable, task_options, self._owner)

    def _stable_name(self, function: Callable[..., Any], name: str, by_value: bool) -> str:
        """``stable_name``, looked for once for a function that has one."""
        try:
            known = self._names.get(function)
        except TypeError:  # neither hashable nor weakly referable
            return stable_name(function, name, by_value=by_value)
        if known is None:
            known = stable_name(function, by_value=by_value)
            if not by_value:
                self._names[function] = known
        return name or known

    # -- the way of a call --------------------------------------------------

    def _called(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        context: CallContext | None,
    ) -> Call:
        return Call(
            unwrap(function),
            args,
            kwargs,
            pool=self.name,
            timeout=self.options.timeout if options.timeout is None else options.timeout,
            trace_id="" if context is None else context.trace_id,
            on_progress=guarded(options.on_progress),
            carried=() if self._carrier is None else self._carrier.read(),
        )

    @staticmethod
    def _refuse_generator(call: Call) -> None:
        if is_generator(call.function):
            name = getattr(call.function, "__name__", "function")
            raise ExecutorError(f"{label(call.function)} is a generator function: use {name}.stream(...).")

    def _take(self) -> Waiter | None:
        try:
            return self._slots.try_take()
        except ExecutorOverloadError:
            self._ledger.reject()
            raise

    async def _admit(self, call: Call) -> None:
        """Take a slot, within the call's deadline."""
        waiter = self._take()
        if waiter is not None:
            begun = perf_counter()
            try:
                await within_deadline(call, self._slots.wait, waiter)
            except CallTimeoutError as error:
                self._ledger.begin()
                self._ledger.fail(error)
                raise
            shorten(call, begun)
        self._ledger.begin()

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Make ready now, and open again after ``shutdown``. Raises what prevents it."""
        closing = self._closing
        if closing is not None:
            await closing.wait()
            with self._lock:
                if self._closing is closing:
                    self._closing = None
                    self._slots.reopen()
        if closing is not None and self._tasks is not None:
            self._tasks.reopen()
        await self._ready()

    async def _ready(self) -> None:
        if self._bypassed:
            self._initialise()
        else:
            await self._open()

    async def shutdown(self, wait: bool = True) -> None:
        """Accept no more calls and end; with ``wait`` the calls in hand are finished first.

        Calls that still waited for admission end with ExecutorClosedError; without
        ``wait``, or when this is cancelled, so do those in hand. Open streams are calls in
        hand: each is read to its end, or closed by its reader. One that nobody can read
        meanwhile is closed at once: its reader has ended, or is the task that waits here.
        Tasks kept by this process that run are finished (or ended) as calls are; those
        that wait are cancelled.
        """
        with self._lock:
            earlier, ended = self._closing, Signal()
            if earlier is None:
                self._closing = ended
                self._slots.close()
        if earlier is not None:
            await earlier.wait()
            return
        if self._tasks is not None:
            self._tasks.withdraw()
        try:
            if wait:
                await self._close_forsaken()
                await self._ledger.idle()
        except BaseException:
            wait = False
            raise
        finally:
            if not wait:
                for stream in self._open_streams():
                    stream.end()
            await self._end(wait, ended)

    def _open_streams(self) -> list[BookedSource]:
        with self._lock:
            return list(self._streams)

    async def _close_forsaken(self) -> None:
        for stream in self._open_streams():
            if stream.forsaken:
                await stream.leave()

    async def _end(self, wait: bool, ended: Signal) -> None:
        import anyio

        with anyio.CancelScope(shield=True):
            try:
                await self._close(wait)
                if self._tasks is not None:
                    await self._tasks.aclose()
            finally:
                ended.set()


def shorten(call: Call, begun: float) -> None:
    """Take from a call's deadline what has passed since ``begun`` (perf_counter)."""
    if call.timeout is not None:
        call.timeout = max(0.0, call.timeout - (perf_counter() - begun))
