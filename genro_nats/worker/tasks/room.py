"""How many tasks a worker asks for: as many as its children have room for, and some ahead while short ones queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from genro_nats.executor.children.pool import ChildPool
from genro_nats.transport.delivery import DeliveryInfo
from genro_nats.transport.intake import Intake

__all__ = ["Room"]

_CROWDED: Final = 0.05  # seconds; what was asked for ahead and is not wanted any more goes back when it comes
_AHEAD: Final = 16  # tasks in excess that are taken all the same
_EASE: Final = 0.005  # seconds


class Room:
    """Keeps the free slots of an intake in step with the children.

    ``waiting()``: tasks that were taken and are not with the children yet. Tasks are asked for
    ahead only while they are brief and others waited behind one not long before: what
    waits here waits for one worker only.
    """

    def __init__(self, children: ChildPool, intake: Intake, waiting: Callable[[], int]) -> None:
        self._children = children
        self._intake = intake
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._planned: asyncio.Handle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._easing: asyncio.TimerHandle | None = None
        self._crowded_until = 0.0
        self._closed = False
        self.brief = False  # the last task was

    def close(self) -> None:
        """Ask for no more."""
        self._closed = True
        for handle in (self._planned, self._ending, self._easing):
            if handle is not None:
                handle.cancel()

    def look_behind(self, info: DeliveryInfo) -> None:
        """A task was taken: do others wait behind it?"""
        if info.pending > 0:
            self._crowded_until = self._loop.time() + _CROWDED

    def adjust(self) -> None:
        """Something has changed: ask for as many as there is room for, once in this turn of the loop."""
        if self._planned is None and not self._closed:
            self._planned = self._loop.call_soon(self._adjust)

    def freed(self) -> None:
        """A call that is no task has left: adjust soon, but not for each of thousands a second."""
        if self._easing is None and not self._closed:
            self._easing = self._loop.call_later(_EASE, self._eased)

    def _eased(self) -> None:
        self._easing = None
        self.adjust()

    def _adjust(self) -> None:
        self._planned = None
        brief = self.brief and self._children.all_brief
        ahead = brief and self._loop.time() < self._crowded_until
        if ahead and self._ending is None:
            self._ending = self._loop.call_later(_CROWDED, self._look_again)
        self._intake.waiting = max(1, self._children.slots)  # what comes ahead is asked for when it is there
        room = max(0, self._children.room(ahead) - self._waiting())
        if brief:
            # What comes will be done sooner than it could be had back by anybody.
            room = max(room, min(self._intake.open, _AHEAD - self._waiting()))
        if room != self._intake.free:
            self._intake.add_slots(room - self._intake.free)

    def _look_again(self) -> None:
        self._ending = None
        self.adjust()
