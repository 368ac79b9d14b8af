"""Which child gets a call: pure decisions, no I/O.

A single-threaded child may be sent calls ahead of time, so that it never
idles for a round trip between two short calls. Only calls of functions seen
to be short are sent ahead, and only behind others that are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sized
from typing import Final, Protocol, TypeVar

__all__ = ["BRIEF", "DEPTH", "LOW", "SHORT", "STALL", "ShortCalls", "choose", "room"]

DEPTH: Final = 16  # calls in a child's hands at most
LOW: Final = 4  # so few in its hands that more are sent: several at once cost one write
SHORT: Final = 0.0005  # seconds; about five times the round trip that sending ahead saves
BRIEF: Final = 0.01  # seconds; one preempted by the system counts for a while
STALL: Final = 0.002  # seconds after which calls are taken back from behind a running one
_DECAY: Final = 0.95  # per call: about 60 short ones until a slow one is forgotten
_SEEN: Final = 3  # runs before a function counts as short
_REMEMBERED: Final = 4096


class ShortCalls:
    """Remembers how long calls of each function take: the decaying maximum of their run times."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def record(self, key: bytes, seconds: float) -> None:
        """A call of this function ran that long."""
        worst, seen = self._known.get(key, (0.0, 0))
        self._known[key] = (max(seconds, worst * _DECAY), seen + 1)
        if seen == 0 and len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def is_short(self, key: bytes) -> bool:
        """May a call of this function be sent ahead?"""
        return self._below(key, SHORT)

    def is_brief(self, key: bytes) -> bool:
        """Does a call of this function end so soon that some of them may wait in a queue?"""
        return self._below(key, BRIEF)

    def _below(self, key: bytes, seconds: float) -> bool:
        worst, seen = self._known.get(key, (seconds, 0))
        return seen >= _SEEN and worst < seconds


class Slotted(Protocol):
    """What the choice looks at."""

    @property
    def inflight(self) -> Sized: ...
    @property
    def slots(self) -> int: ...
    @property
    def ahead(self) -> int: ...
    @property
    def all_short(self) -> bool: ...
    @property
    def paused(self) -> bool: ...


S = TypeVar("S", bound=Slotted)


def room(child: Slotted, short: bool) -> bool:
    """Can this child be given one more call now?"""
    if child.paused:
        return False
    load = len(child.inflight)
    if load < child.slots:
        return True
    return short and load < child.ahead and child.all_short


def choose(children: Iterable[S], short: bool) -> S | None:
    """The least loaded child with room; None: the call waits."""
    best: S | None = None
    least = 1 << 30
    for child in children:
        load = len(child.inflight)
        if load < least and room(child, short):
            if load == 0:
                return child
            best, least = child, load
    return best
