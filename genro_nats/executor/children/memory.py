"""Holds children to ``memory_limit``: no new calls from 80 % of it on, the end at 95 %.

A child that comes near the limit while it runs a call may let go of it when that call
ends: then it goes on. Else it is replaced, once it is idle. Looked at five times a
second, so what fills the memory of a machine within less is not stopped by this.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from genro_nats.config.units import shown_size
from genro_nats.errors import ConfigurationError, MemoryLimitError
from genro_nats.executor.children.usage import AT_ONCE, usage

if TYPE_CHECKING:
    from genro_nats.executor.children.child import Child
    from genro_nats.executor.children.pool import ChildPool

__all__ = ["MemoryWatch", "Share", "refuse_if_tight", "share"]

_PAUSE: Final = 0.80
_KILL: Final = 0.95
_LOOK: Final = 0.2 if AT_ONCE else 1.0  # seconds between two looks


class Share(Enum):
    """How much of its limit a child holds."""

    FINE = auto()
    HIGH = auto()
    OVER = auto()


def share(used: int, limit: int) -> Share:
    """What so many bytes are of a limit."""
    if used >= _KILL * limit:
        return Share.OVER
    return Share.HIGH if used >= _PAUSE * limit else Share.FINE


def refuse_if_tight(pid: int, limit: int | None) -> None:
    """Raises ConfigurationError if a child is near its limit before its first call."""
    used = usage([pid]).get(pid) if limit and AT_ONCE else None
    if limit and used is not None and share(used.memory, limit) is not Share.FINE:
        raise ConfigurationError(
            f"A child holds {shown_size(used.memory)} before its first call, and may hold "
            f"{shown_size(limit)} (memory_limit), of which a fifth is kept free: raise memory_limit."
        )


class MemoryWatch:
    """Looks at the children of one pool from time to time."""

    def __init__(self, pool: ChildPool, limit: int) -> None:
        self._pool = pool
        self._limit = limit
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        """Look no more. Can be repeated."""
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            roster = self._pool.roster
            children = {child.pid: child for child in [*roster.active, *roster.leaving] if child.pid}
            found = usage(children) if AT_ONCE else await asyncio.to_thread(usage, list(children))
            for pid, used in found.items():
                self._judge(children[pid], used.memory)

    def look(self, child: Child) -> None:
        """A call of this child has ended: is there room again?"""
        used = usage([child.pid]).get(child.pid) if AT_ONCE else None
        if used is not None:
            self._judge(child, used.memory)

    def _judge(self, child: Child, used: int) -> None:
        found = share(used, self._limit)
        if found is Share.FINE:
            if child.crowded:
                child.crowded = False
                self._pool.on_capacity()
        elif not child.inflight:
            self._pool.roster.retire(child)
        elif found is Share.OVER:
            self._kill(child, used)
        else:
            self._pause(child, used)

    def _pause(self, child: Child, used: int) -> None:
        if child.crowded or child.leaving:
            return
        child.crowded = True
        self._pool.plan.on_event("child.crowded", pid=child.pid, memory=used, limit=self._limit)
        self._pool.on_unstarted(child.take_back())
        self._pool.on_capacity()

    def _kill(self, child: Child, used: int) -> None:
        if child.verdict is not None or child.ended:
            return
        self._pool.on_unstarted(child.take_back())
        calls = ", ".join(work.key.decode(errors="replace") for work in child.inflight.values())
        child.verdict = MemoryLimitError(
            f"The child process {child.pid} was ended while it ran {calls}: it held {shown_size(used)}, and "
            f"may hold {shown_size(self._limit)} (memory_limit, --memory-limit of a worker), less 5 %. Raise "
            "the limit, give fewer data to a call, or run less at a time in a child.",
            pid=child.pid,
            exitcode=-9,
            limit=self._limit,
            used=used,
        )
        self._pool.plan.on_event("child.overfull", pid=child.pid, memory=used, limit=self._limit)
        self._pool.roster.kill(child)
        self._pool.on_capacity()
