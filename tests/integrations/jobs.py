"""Work for pools: functions that any child or worker can import."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

LIMIT = 30.0  # seconds; no gate holds longer


def double(x: int) -> tuple[int, int]:
    """Twice ``x``, and the process that said so."""
    return 2 * x, os.getpid()


def gate(path: str) -> str:
    """Return once the file exists."""
    end = time.monotonic() + LIMIT
    while not Path(path).exists():
        if time.monotonic() > end:
            raise RuntimeError(f"nobody opened {path}")
        time.sleep(0.005)
    return path


def write_after(opened: str, path: str) -> None:
    """Write ``path`` once the file ``opened`` exists."""
    gate(opened)
    Path(path).write_text("done")


def count(n: int) -> Iterator[int]:
    yield from range(n)
