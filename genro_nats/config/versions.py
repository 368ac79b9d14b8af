"""Which versions of genro-nats work together: those at most one minor version apart."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["apart"]

_VERSION: Final = re.compile(r"(\d+)\.(\d+)")
_TOGETHER: Final = 1  # minor versions


def apart(one: str, other: str) -> bool:
    """Are they too far from each other? An unknown version is not."""
    first, second = _VERSION.match(one), _VERSION.match(other)
    if first is None or second is None:
        return False
    if first[1] != second[1]:
        return True
    return abs(int(first[2]) - int(second[2])) > _TOGETHER
