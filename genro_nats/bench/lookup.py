"""A function over 5 MB, as one that can be imported and as a closure of the same body."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["TABLE", "TABLE_SIZE", "closure", "look"]

TABLE_SIZE = 5_000_000  # bytes
TABLE = bytes(range(250)) * (TABLE_SIZE // 250)


def look(at: int) -> int:
    """One byte of the table."""
    return TABLE[at]


def closure() -> Callable[[int], int]:
    """The same over a table of its own, which nobody has yet."""
    table = os.urandom(TABLE_SIZE)

    def look(at: int) -> int:
        return table[at]

    return look
