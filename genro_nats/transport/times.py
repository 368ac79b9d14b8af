"""Seconds since the epoch, and the text that NATS servers write and read for them (RFC 3339, UTC)."""

from __future__ import annotations

import math
from datetime import UTC, datetime

__all__ = ["from_rfc3339", "to_rfc3339"]


def to_rfc3339(seconds: float) -> str:
    """In whole milliseconds, rounded up: nothing is due too early."""
    total = math.ceil(round(seconds * 1000, 3))
    whole = datetime.fromtimestamp(total // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{total % 1000:03d}Z"


def from_rfc3339(text: str) -> float:
    """Seconds since the epoch. Servers write nanoseconds; a float holds microseconds.

    Raises:
        ValueError: it is no such text.
    """
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
