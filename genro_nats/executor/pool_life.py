"""What a pool of this package consists of, how it starts and how it ends."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from genro_nats.config import PoolOptions, bypass_from_env
from genro_nats.executor.admission import Slots
from genro_nats.executor.base import BaseExecutor
from genro_nats.executor.booked import BookedSource
from genro_nats.executor.bridge import Signal
from genro_nats.executor.carry import Carrier
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.ledger import Ledger
from genro_nats.executor.local_run import (
    run_initializer,
    run_inline,
)
from genro_nats.message import Call, CallContext
from genro_nats.tasks.request import OWNER

if TYPE_CHECKING:
    from genro_nats.executor.local_tasks.backend import LocalTasks

__all__ = ["PoolLife"]


class PoolLife(BaseExecutor):
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
