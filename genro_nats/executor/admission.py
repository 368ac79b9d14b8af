"""Who may come in: a limit that threads and event loops share, with waiters served in order."""

from __future__ import annotations

import threading
from collections import OrderedDict
from enum import Enum, auto
from typing import Final

from genro_nats.errors import CallTimeoutError, ExecutorClosedError, ExecutorOverloadError
from genro_nats.executor.bridge import Signal

__all__ = ["Decision", "Slots", "Waiter", "closed_error", "decide", "overload_error"]

RETRY_AFTER = 1.0  # seconds; what callers are told to wait after an overload


class Decision(Enum):
    """What becomes of one that wants in."""

    ADMIT = auto()
    WAIT = auto()
    REFUSE = auto()
    CLOSED = auto()


_ADMIT: Final = Decision.ADMIT  # members of an enum are slow to look up


def decide(taken: int, waiting: int, limit: int, *, may_wait: bool, closed: bool) -> Decision:
    """Nobody overtakes those who wait, and nobody waits where overload fails fast."""
    if closed:
        return Decision.CLOSED
    if taken < limit and not waiting:
        return _ADMIT
    return Decision.WAIT if may_wait else Decision.REFUSE


def overload_error(name: str, limit: int) -> ExecutorOverloadError:
    """The error of a call that was refused."""
    return ExecutorOverloadError(
        f"Executor '{name}' has {limit} pending tasks.",
        executor=name,
        max_pending=limit,
        retry_after=RETRY_AFTER,
    )


class Waiter:
    """A place in the line."""

    __slots__ = ("admitted", "signal")

    def __init__(self) -> None:
        self.signal = Signal()
        self.admitted = False


class Slots:
    """``limit`` slots of pool ``name``. All methods may be called from any thread."""

    def __init__(self, name: str, limit: int, *, may_wait: bool = True) -> None:
        self._name = name
        self._limit = limit
        self._may_wait = may_wait
        self._lock = threading.Lock()
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()  # they leave from anywhere in the line
        self._closed = False
        self._taken = 0

    @property
    def taken(self) -> int:
        """Slots in use."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiters)

    def try_take(self, *, patient: bool = False) -> Waiter | None:
        """Take a slot now and return None, or join those who wait: then await ``wait(waiter)``.

        ``patient``: wait also where overload fails.

        Raises:
            ExecutorOverloadError: no slot is free, and waiting is not wanted.
            ExecutorClosedError: ``close`` was called.
        """
        with self._lock:
            decision = decide(
                self._taken,
                len(self._waiters),
                self._limit,
                may_wait=patient or self._may_wait,
                closed=self._closed,
            )
            if decision is _ADMIT:
                self._taken += 1
                return None
            if decision is Decision.WAIT:
                waiter = Waiter()
                self._waiters[waiter] = None
                return waiter
        raise self._closed_error() if decision is Decision.CLOSED else overload_error(self._name, self._limit)

    async def wait(self, waiter: Waiter) -> None:
        """Wait for the slot; when cancelled, the place in the line or the slot is given up.

        Raises:
            ExecutorClosedError: ``close`` was called meanwhile.
        """
        try:
            await waiter.signal.wait()
        except BaseException:
            self._leave(waiter)
            raise
        if not waiter.admitted:
            raise self._closed_error()

    def wait_blocking(self, waiter: Waiter, timeout: float | None, what: str) -> None:
        """As ``wait``, in a plain thread; raises CallTimeoutError after ``timeout`` seconds."""
        try:
            if not waiter.signal.wait_blocking(timeout):
                raise CallTimeoutError(f"{what} was not begun in time.", timeout=timeout, function=what)
        except BaseException:
            self._leave(waiter)
            raise
        if not waiter.admitted:
            raise self._closed_error()

    async def take(self, *, patient: bool = False) -> None:
        """Take a slot, waiting for it if need be. Raises as ``try_take`` and ``wait``."""
        waiter = self.try_take(patient=patient)
        if waiter is not None:
            await self.wait(waiter)

    def release(self) -> None:
        """Give a slot back: to the first who waits, if anybody does."""
        with self._lock:
            first = self._waiters.popitem(last=False)[0] if self._waiters else None
            if first is None:
                self._taken -= 1
                return
            first.admitted = True
        first.signal.set()

    def close(self) -> None:
        """Admit nobody any more; those who wait get ExecutorClosedError."""
        with self._lock:
            self._closed = True
            waiters, self._waiters = self._waiters, OrderedDict()
        for waiter in waiters:
            waiter.signal.set()

    def reopen(self) -> None:
        """Undo ``close``."""
        self._closed = False

    def _leave(self, waiter: Waiter) -> None:
        with self._lock:
            admitted = waiter.admitted
            self._waiters.pop(waiter, None)
        if admitted:
            self.release()

    def _closed_error(self) -> ExecutorClosedError:
        return closed_error(self._name)


def closed_error(name: str) -> ExecutorClosedError:
    """The error of a call on a pool that was shut down."""
    return ExecutorClosedError(f"Executor '{name}' is shut down; start() opens it again.", executor=name)
