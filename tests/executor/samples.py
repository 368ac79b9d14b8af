"""A module with decorated functions, as an application has one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NewType

from genro_nats import InlineExecutor, current_call

first = InlineExecutor("first")
second = InlineExecutor("second")
tenant: ContextVar[str] = ContextVar("tenant")
UserId = NewType("UserId", int)


@functools.cache
def memo(x: int) -> int:
    return x


@first
def inc(x: int) -> int:
    """Add one."""
    return x + 1


@second(timeout=3, name="samples.both", aliases=["old.both"])
@first
def both(x: int) -> int:
    return x


def plain(x: int) -> int:
    return x


wrapped = first(plain)


@first
async def later(x: int) -> int:
    return x


@first
def count(n: int) -> Iterator[int]:
    yield from range(n)


class Shop:
    """Its instances pickle, so its methods can run anywhere."""

    def __init__(self, rate: int) -> None:
        self.rate = rate

    @first
    def price(self, net: int) -> int:
        return net * self.rate

    @staticmethod
    @first
    def free() -> int:
        return 0

    @classmethod
    @first
    def default(cls) -> int:
        return cls(2).rate


def watched(n: int) -> Iterator[int]:
    """Count, while a thread asks all the time whether the call is cancelled."""
    call, done = current_call(), threading.Event()

    def ask() -> None:
        while not (done.is_set() or call.cancelled):
            pass

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield from range(n)
    finally:
        done.set()
        asking.join()
