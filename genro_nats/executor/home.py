"""Where an engine lives: an event loop, found or made, that may end without telling.

An asyncio loop closes its async generators when ``asyncio.run`` ends; a
generator of ours among them (``_farewell``) is how an engine learns of it in
time to end its children and sockets. Loops that are closed otherwise are
noticed at the pool's next call, when it is dropped, or at interpreter exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from genro_nats.errors import ExecutorClosedError, ExecutorError
from genro_nats.executor.bridge import Signal, backend, running_loop, runs_in
from genro_nats.executor.engine import Engine
from genro_nats.executor.relay import LoopThread, Relay

__all__ = ["Home"]

_JOIN: Final = 1.0  # seconds that a loop's thread gets to end at interpreter exit


class Home:
    """One engine in its loop. It starts once; ``started`` is set then, or when it failed.

    ``ending``: it runs nothing more; ``ended`` is set once another may take its place.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.started = Signal()
        self.ended = Signal()
        self.ending = False
        self.error: BaseException | None = None
        self.ready = False
        self._ended = False
        self._abandoned = False
        self._pid = os.getpid()
        self._relays: set[Relay] = set()
        self._guard: Any = None
        self._start_task: asyncio.Task[None] | None = None
        self._thread: LoopThread | None = None
        loop = running_loop() if backend() == "asyncio" else None
        if loop is None:
            self._thread = LoopThread(f"genro-nats-{name}")
            loop = self._thread.loop
        self.loop: asyncio.AbstractEventLoop = loop
        self._ident = threading.get_ident() if self._thread is None else 0

    @property
    def here(self) -> bool:
        """Does the present code run in its loop?"""
        return runs_in(self.loop)

    @property
    def inherited(self) -> bool:
        """Was it made in the process that this one was forked from?"""
        return self._pid != os.getpid()

    @property
    def gone(self) -> bool:
        """Can it run nothing any more?"""
        if self._ended or self.inherited or self.loop.is_closed():
            return True
        # A loop of this very thread that is not running now can't run while we wait for it.
        return self._ident == threading.get_ident() and not self.loop.is_running()

    def begin(self) -> None:
        """Start the engine; wait for ``started``. A caller that is cancelled does not stop it."""
        if self.here:
            self._open()
        else:
            self.loop.call_soon_threadsafe(self._open)

    def _open(self) -> None:
        self._start_task = self.loop.create_task(self._start())

    async def _start(self) -> None:
        try:
            await self.engine.start()
            self._guard = self._farewell()
            await anext(self._guard)
            self.ready = True
        except asyncio.CancelledError:
            self._fail(ExecutorClosedError("The event loop ended while the pool was starting."))
            self.engine.abandon()
            raise
        except Exception as error:
            self._fail(error)
        finally:
            self.started.set()

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self._ended = True
        if self._thread is not None:
            self._thread.stop()

    async def _farewell(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if not self._ended:
                await self._end(wait=False)

    async def relay(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Await ``function(*args)`` in its loop, from another loop or backend."""
        relay = self.relayed(function, *args)
        try:
            return await relay.wait()
        finally:
            self._relays.discard(relay)

    def relay_blocking(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """As ``relay``, from a plain thread."""
        relay = self.relayed(function, *args)
        try:
            return relay.wait_blocking()
        finally:
            self._relays.discard(relay)

    def relayed(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Relay:
        """A started relay; raises ExecutorError where waiting for it would block its loop."""
        if self._ident == threading.get_ident() and not self.here:
            raise ExecutorError(
                "This pool lives in an event loop that is waiting below the present code in the same thread. "
                "Close the pool there first, or call it from that loop."
            )
        relay = Relay(self.loop, function, *args)
        self._relays.add(relay)
        relay.start()
        if self._ended:
            relay.fail()
        return relay

    async def close(self, wait: bool) -> None:
        """End the engine, from any loop."""
        if self.gone:
            self.abandon()
        elif self.here:
            await self._end(wait)
        else:
            await self.relay(self._end, wait)
        if self._thread is not None:
            self._thread.stop()

    async def _end(self, wait: bool) -> None:
        self.ready = False
        self.ending = True
        try:
            await self.engine.aclose(wait)
        except BaseException:
            self.engine.abandon()
            raise
        finally:
            self._ended = True
            self.ended.set()
            current = asyncio.current_task()
            for relay in list(self._relays):
                if relay._task is not current:
                    relay.fail()
            if self._guard is not None and not self._guard.ag_running:
                await self._guard.aclose()

    def abandon(self) -> None:
        """End at once, from any thread: at interpreter exit, with the pool dropped or the loop gone."""
        if self._ended or self.inherited:
            self._ended = True  # what a fork inherited belongs to the process it comes from
            return
        self._ended = True
        self.ended.set()
        self.ready = False
        for relay in list(self._relays):
            relay.fail()
        if self.here:
            self._abandon_engine()
        elif not self.loop.is_closed() and self.loop.is_running():
            # In its loop, and before that ends: cancelled children would be replaced meanwhile.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._abandon_engine)
        if self._thread is not None:
            self._thread.stop()
            self._thread.join(_JOIN)
        if self.loop.is_closed() or not self.loop.is_running():
            self._abandon_engine()
            _hush(self.loop)

    def _abandon_engine(self) -> None:
        if not self._abandoned:
            self._abandoned = True
            self.engine.abandon()


def _hush(loop: asyncio.AbstractEventLoop) -> None:
    """Let our tasks of a loop that never runs again go without asyncio's complaint about each."""
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        module = "" if frame is None else frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "genro_nats":
            task._log_destroy_pending = False  # type: ignore[attr-defined]
