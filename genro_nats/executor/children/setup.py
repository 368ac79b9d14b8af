"""What a child is told when it is started."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ChildSetup"]


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
