"""How long to wait before the next attempt: twice as long each time, up to a limit."""

from __future__ import annotations

from typing import Final

__all__ = ["backoff"]

_DOUBLINGS: Final = 16  # no limit in use lies beyond; a power of a long outage would overflow


def backoff(attempt: int, first: float, last: float) -> float:
    """Seconds to wait after attempt number ``attempt`` (from 0): ``first``, doubled each time, at most ``last``."""
    return min(last, first * 2.0 ** min(attempt, _DOUBLINGS))
