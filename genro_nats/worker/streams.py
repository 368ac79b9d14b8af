"""Sending a generator's items no faster than the caller takes them.

The caller grants credit; a ``Gate`` holds it. How a child waits for more is
its own matter: a single-threaded one reads its pipe, a thread waits on a
condition.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any, Protocol

from genro_nats.codec.frame import Buffer, Frame
from genro_nats.codec.functions import not_a_generator
from genro_nats.message import STREAM_WINDOW
from genro_nats.worker.answers import item_frame
from genro_nats.worker.coroutines import run_apart

__all__ = ["AsyncGate", "Gate", "ThreadGate", "as_iterator", "pump"]


class Gate(Protocol):
    """``take()`` waits for credit of one item; False: the caller wants no more."""

    def take(self) -> bool: ...


def as_iterator(produced: Any) -> Iterator[Any]:
    """A sync iterator over what a generator function gave; an async generator gets an event loop of its own."""
    if hasattr(produced, "__anext__"):
        return _run_async(produced)
    if hasattr(produced, "__next__"):
        return produced  # type: ignore[no-any-return]
    raise not_a_generator(produced)


def _run_async(produced: AsyncIterator[Any]) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield run_apart(runner.run, produced.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(produced, "aclose", None)
            if close is not None:
                run_apart(runner.run, close())


def pump(
    frame: Frame, items: Iterator[Any], gate: Gate, send: Callable[[list[Buffer]], None], limit: int
) -> None:
    """Send all items as credit allows, each of ``limit`` bytes at most.

    Closes the generator at the end, or when the caller left.
    """
    close = getattr(items, "close", None)
    with closing(items) if close is not None else _nothing():  # type: ignore[type-var]
        while gate.take():
            try:
                item = next(items)
            except StopIteration:
                return
            send(item_frame(frame, item, limit))


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


class ThreadGate:
    """Credit that another thread grants."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._credit = STREAM_WINDOW
        self._open = True

    def grant(self, count: int) -> None:
        """Allow that many more items."""
        with self._changed:
            self._credit += count
            self._changed.notify()

    def close(self) -> None:
        """The caller wants no more."""
        with self._changed:
            self._open = False
            self._changed.notify()

    def take(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._credit > 0 or not self._open)
            self._credit -= 1
            return self._open


class AsyncGate:
    """Credit within one event loop."""

    def __init__(self) -> None:
        self._credit = STREAM_WINDOW
        self._open = True
        self._changed = asyncio.Event()

    def grant(self, count: int) -> None:
        """Allow that many more items."""
        self._credit += count
        self._changed.set()

    def close(self) -> None:
        """The caller wants no more."""
        self._open = False
        self._changed.set()

    async def take(self) -> bool:
        """Wait for credit of one item; False: the caller wants no more."""
        while self._open and self._credit <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._credit -= 1
        return self._open
