"""Functions that run on workers whose life is tested."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from tests.faults.jobs import note, wait_for


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


def version() -> object:
    """What the code in the site's directory calls itself."""
    import life_code  # type: ignore[import-not-found]

    return life_code.version()


def wait_until(path: str, release: str) -> int:
    """Note the call, run until a file exists; the child's pid."""
    note(path, "began")
    wait_for(release, 30)
    return os.getpid()


def reveal(secret: str) -> None:
    """Raise an exception that quotes its argument."""
    raise ValueError(f"wrong password: {secret}")


def take_long() -> None:
    """An initializer that takes a while."""
    time.sleep(0.4)
