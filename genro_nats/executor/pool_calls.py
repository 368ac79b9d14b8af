"""How a pool's calls are admitted, booked and run, nested ones where they are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from genro_nats.codec.functions import label, unwrap
from genro_nats.errors import CallTimeoutError, ExecutorError, ExecutorOverloadError
from genro_nats.executor.admission import Waiter
from genro_nats.executor.base import NO_OPTIONS
from genro_nats.executor.booked import BookedSource
from genro_nats.executor.bridge import within_deadline
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.local_run import (
    InlineSource,
    guarded,
    is_async,
    is_generator,
    run_inline_blocking,
)
from genro_nats.executor.pool_life import PoolLife
from genro_nats.executor.stream import Stream
from genro_nats.message import Call, CallContext, CallOptions, running_call

__all__ = ["PoolCalls", "shorten"]


class PoolCalls(PoolLife):
    """Plain, blocking and streamed calls."""

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
        waiter = self._take()
        if waiter is not None:
            await self._wait(call, waiter)
        self._ledger.begin()
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
        waiter = self._take()
        if waiter is not None:
            await self._wait(call, waiter)
        self._ledger.begin()
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
            by=options.by,
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

    async def _wait(self, call: Call, waiter: Waiter) -> None:
        """Wait for a slot, within the call's deadline."""
        begun = perf_counter()
        try:
            await within_deadline(call, self._slots.wait, waiter)
        except CallTimeoutError as error:
            self._ledger.begin()
            self._ledger.fail(error)
            raise
        shorten(call, begun)


def shorten(call: Call, begun: float) -> None:
    """Take from a call's deadline what has passed since ``begun`` (perf_counter)."""
    if call.timeout is not None:
        call.timeout = max(0.0, call.timeout - (perf_counter() - begun))
