"""What a child is told when it is started, and the signals that wait meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

__all__ = ["OWNER_SIGNALS", "ChildSetup", "signals_held"]

OWNER_SIGNALS: Final = frozenset(
    number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")
)


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """Plain data, sent as JSON.

    ``mode``: "sync", "threads" or "async"; ``slots``: calls that may run at
    once; ``pool`` and ``address``: what ``current_call()`` shows; ``max_memory``:
    bytes above which the child asks to be replaced.
    """

    mode: str = "sync"
    slots: int = 1
    pool: str = ""
    address: str = ""
    max_memory: int | None = None


@contextmanager
def signals_held() -> Iterator[None]:
    """A program started in here begins with the signals blocked that its owner decides about.

    A Ctrl-C that reaches the whole group would else end it before it has handlers; it
    unblocks them once it has.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OWNER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
