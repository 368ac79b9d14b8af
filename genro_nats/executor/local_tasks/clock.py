"""The event loop in which a pool's tasks live: begun when it is first needed, ended with the pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from genro_nats.executor.relay import LoopThread

__all__ = ["Clock"]

_JOIN: Final = 1.0  # seconds that the thread gets to end at interpreter exit


class Clock:
    """A loop in a thread of its own, because the loop of whoever enqueues may end before the task.

    ``owner``: the thread ends when it is dropped.
    """

    def __init__(self, owner: object, name: str) -> None:
        self._owner = weakref.ref(owner)
        self._name = name
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self.pid = os.getpid()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs from now on."""
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread(f"genro-nats-tasks-{self._name}")
                self._finalizer = weakref.finalize(self._owner(), _end, self._thread)
            return self._thread.loop

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Let ``function(*args)`` run there soon; from any thread. Dropped if the loop ends before."""
        with contextlib.suppress(RuntimeError):
            # Else the callback, and every timer it makes, would keep the caller's context variables.
            self.loop.call_soon_threadsafe(function, *args, context=Context())

    def stop(self) -> None:
        """Let the loop end; it begins anew when it is needed again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            if self._finalizer is not None:
                self._finalizer.detach()
            thread.stop()


def _end(thread: LoopThread) -> None:
    thread.stop()
    thread.join(_JOIN)
