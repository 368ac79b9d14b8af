"""Executors whose work is done by an engine that lives in one asyncio event loop.

The loop of the first call is the engine's home, and calls from there go
straight to it. Where there is none (trio, plain threads) the home is a loop in
a thread of its own. Calls from elsewhere are relayed.
"""

from __future__ import annotations

import contextlib
import weakref
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter
from typing import Any

from genro_nats.codec.functions import label, unwrap
from genro_nats.errors import CallTimeoutError, ExecutorClosedError
from genro_nats.executor.admission import closed_error
from genro_nats.executor.bridge import caller_post, runs_in, within_deadline
from genro_nats.executor.engine import Engine, StreamSource
from genro_nats.executor.home import Home
from genro_nats.executor.pool import Pool
from genro_nats.executor.pool_calls import shorten
from genro_nats.message import Call, CallOptions, running_call

__all__ = ["HomedExecutor"]


class HomedExecutor(Pool):
    """A kind implements ``_make_engine``, and ``_stays_here`` if there are places where it needs none."""

    def __init__(self, *args: Any, **stated: Any) -> None:
        super().__init__(*args, **stated)
        self._home: Home | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    @abstractmethod
    def _make_engine(self) -> Engine:
        """A new engine, not yet started."""

    def _stays_here(self) -> bool:
        """Must calls run inline in this process?"""
        return False

    def _is_inline(self) -> bool:
        return super()._is_inline() or self._stays_here()

    # -- calls --------------------------------------------------------------

    def _run(self, call: Call) -> Coroutine[Any, Any, Any]:
        home = self._home
        if home is not None and home.ready and runs_in(home.loop):
            return home.engine.run(call)
        return self._run_elsewhere(call)

    async def _run_elsewhere(self, call: Call) -> Any:
        """Run a call where there is no engine yet, or made in another place than it lives in."""
        if self._stays_here():
            return await self._run_here(call)
        home = await self._home_of(call)
        return await (home.engine.run(call) if home.here else home.relay(home.engine.run, call))

    async def _source(self, call: Call) -> StreamSource:
        if self._stays_here():
            return await self._source_here(call)
        return _HomedSource(await self._home_of(call), call)

    async def _home_of(self, call: Call) -> Home:
        """Where a call runs, within its deadline; from elsewhere its progress finds the way back."""
        begun = perf_counter()
        home = await within_deadline(call, self._settle)
        shorten(call, begun)
        if not home.here:
            post_progress(call)
        return home

    def invoke_blocking(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        """``invoke`` for a plain thread, which it blocks."""
        context = running_call.get()
        inside = context is not None and self._is_inside(context)
        if inside or self._is_inline():
            return super().invoke_blocking(function, args, kwargs, options)
        self._require_plain_thread(function)
        home = self._found_home()
        timeout = self.options.timeout if options.timeout is None else options.timeout
        if not home.started.wait_blocking(timeout):
            raise CallTimeoutError(
                f"Executor '{self.name}' was not started within {timeout:g} s.",
                timeout=timeout,
                function=label(unwrap(function)),
            )
        self._raise_failure(home)
        return home.relay_blocking(self.invoke, function, args, kwargs, options)

    # -- the home -----------------------------------------------------------

    async def _settle(self) -> Home:
        """A home whose engine has started. Raises what prevented its start, to all who wait for it."""
        if (home := self._home) is not None and home.ready and runs_in(home.loop):
            return home
        while True:
            home = self._found_home()
            await home.started.wait()
            self._raise_failure(home)
            if not home.ending:
                return home
            await home.ended.wait()

    def _raise_failure(self, home: Home) -> None:
        if home.error is not None:
            with self._lock:
                if self._home is home:
                    self._home = None
            raise home.error

    def _found_home(self) -> Home:
        with self._lock:
            if self._closing is not None and self._home is None:
                raise closed_error(self.name)
            old = self._home
            if old is not None and not old.gone:
                return old
            home = self._home = Home(self._make_engine(), self.name)
            if self._finalizer is not None:
                self._finalizer.detach()
            self._finalizer = weakref.finalize(self, home.abandon)
        if old is not None:
            old.abandon()
        home.begin()
        return home

    def check_home(self) -> None:
        """End what waits for an event loop that has gone; the next call finds another home."""
        home = self._home
        if home is not None and home.gone:
            home.abandon()

    async def _open(self) -> None:
        if not self._stays_here():
            await self._settle()

    async def _close(self, wait: bool) -> None:
        home, self._home = self._home, None
        if home is not None:
            await home.started.wait()
            # A loop that ends meanwhile has ended the engine too.
            with contextlib.suppress(ExecutorClosedError):
                await home.close(wait)

    def _facts(self) -> dict[str, Any]:
        home = self._home
        return home.engine.facts() if home is not None and home.ready else {}


def post_progress(call: Call) -> None:
    """Let the call's progress reach its listener in the present event loop."""
    listener = call.on_progress
    if listener is not None and call.task is None:  # who keeps a task hears of it in any thread, and in order
        call.on_progress = partial(caller_post(), listener)


class _HomedSource:
    """A stream's source, read from whatever loop asks; its engine is told in its own."""

    def __init__(self, home: Home, call: Call) -> None:
        self._home = home
        self._call = call
        self._source: StreamSource | None = None

    async def receive(self) -> Any:
        return await (self._receive() if self._home.here else self._home.relay(self._receive))

    async def _receive(self) -> Any:
        if self._source is None:
            self._source = self._home.engine.stream(self._call)
        return await self._source.receive()

    async def aclose(self) -> None:
        source = self._source
        if source is None or self._home.gone:
            return
        await (source.aclose() if self._home.here else self._home.relay(source.aclose))

    def abort(self) -> None:
        source = self._source
        if source is None or self._home.gone:
            return
        if self._home.here:
            source.abort()
        else:
            with contextlib.suppress(RuntimeError):
                self._home.loop.call_soon_threadsafe(source.abort)
