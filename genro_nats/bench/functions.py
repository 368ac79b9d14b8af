"""The functions that the benchmark calls; it imports almost nothing, since every child imports it."""

from __future__ import annotations

import os
import time
from typing import TypeVar

__all__ = [
    "echo",
    "echo_async",
    "echo_large",
    "gated",
    "long_sleep",
    "medium_sleep",
    "no_op",
    "short_sleep",
    "started_at",
    "timed_sleep",
]

T = TypeVar("T")
Interval = tuple[int, float, float]


def echo(value: T) -> T:
    """The value itself."""
    return value


def echo_large(value: T) -> T:
    """``echo`` under another name, so that a pool can tell large calls from small ones."""
    return value


async def echo_async(value: T) -> T:
    """The value itself, from a coroutine."""
    return value


def started_at() -> float:
    """Now, in seconds on the machine's monotonic clock."""
    return time.monotonic()


def no_op(value: bytes) -> bytes:
    """Nothing; the value itself, to see that it came through."""
    return value


def gated(gate: str, value: T) -> T:
    """The value, once the file ``gate`` exists."""
    while not os.path.exists(gate):  # noqa: PTH110 - a Path would cost more than the call
        time.sleep(0.001)
    return value


def timed_sleep(seconds: float) -> Interval:
    """Sleep; in which process, from when to when on the machine's monotonic clock."""
    start = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), start, time.monotonic()


def long_sleep(seconds: float) -> Interval:
    """``timed_sleep`` under another name, so that a pool can tell long calls from short ones."""
    return timed_sleep(seconds)


def short_sleep(seconds: float) -> Interval:
    """``timed_sleep`` under another name, so that a pool can tell short calls from long ones."""
    return timed_sleep(seconds)


def medium_sleep(seconds: float) -> Interval:
    """``timed_sleep`` under a third name."""
    return timed_sleep(seconds)
