"""Functions that run on workers whose life is tested."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator


def count_slowly(count: int, pause: float) -> Iterator[int]:
    for number in range(count):
        yield number
        time.sleep(pause)


_hoard: list[bytearray] = []


def hold(megabytes: int, seconds: float = 0.0, *, keep: bool = False) -> int:
    """Hold so much memory for a while, or for good; the child's pid."""
    block = bytearray(os.urandom(1024)) * (1024 * megabytes)
    if keep:
        _hoard.append(block)
    time.sleep(seconds)
    return os.getpid()
