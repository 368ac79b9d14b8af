"""Who pulls next: turns go round the owners, so that a slow or silent one holds up no other. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

__all__ = ["ALL", "AT_ONCE", "PER_OWNER", "Lane", "Turn", "Turns"]

AT_ONCE: Final = 16  # pulls that go on at the same time; half of them are kept for owners that have none
PER_OWNER: Final = 4  # pulls from one owner at the same time
ALL: Final = 64  # the same, with those that rest


class _State(Enum):
    WAITING = "waiting"
    GOING = "going"
    RESTING = "resting"
    ENDED = "ended"


class Turn:
    """One pull's place. ``begin``: called when its turn has come; ``give_up``: ends it without one."""

    __slots__ = ("begin", "give_up", "lane", "state")

    def __init__(self, lane: Lane, begin: Callable[[], object], give_up: Callable[[], object]) -> None:
        self.lane = lane
        self.begin = begin
        self.give_up = give_up
        self.state = _State.WAITING

    @property
    def waiting(self) -> bool:
        """Has its turn not come yet?"""
        return self.state is _State.WAITING


class Lane:
    """One owner: ``begun`` of its pulls, ``resting`` of them silent; ``heard``: its last sign (loop time)."""

    __slots__ = ("begun", "heard", "listed", "resting", "waiting")

    def __init__(self) -> None:
        self.begun = 0
        self.resting = 0
        self.waiting: deque[Turn] = deque()
        self.heard = 0.0
        self.listed = False


class Turns:
    """The turns of all pulls of a puller. Those that rest take no place from others."""

    def __init__(self) -> None:
        self.begun = 0
        self.going = 0
        self._lanes: dict[str, Lane] = {}
        self._round: deque[Lane] = deque()  # those of which a pull waits

    def join(self, owner: str, begin: Callable[[], object], give_up: Callable[[], object]) -> Turn:
        """Wait for a turn; it comes with ``go``, when the caller is ready for it."""
        lane = self._lanes.setdefault(owner, Lane())
        turn = Turn(lane, begin, give_up)
        lane.waiting.append(turn)
        if not lane.listed:
            lane.listed = True
            self._round.append(lane)
        return turn

    def leave(self, owner: str, turn: Turn) -> None:
        """The pull has ended, begun or not."""
        self.go_on(turn)
        lane = turn.lane
        if turn.waiting:
            lane.waiting.remove(turn)
        else:
            lane.begun -= 1
            self.begun -= 1
            self.going -= 1
        turn.state = _State.ENDED
        # They know the pull, which knows the turn: as a circle it would keep its memory.
        turn.begin = turn.give_up = _ended
        if not lane.begun and not lane.waiting:
            self._lanes.pop(owner, None)
        self.go()

    def rest(self, turn: Turn) -> None:
        """Nothing is heard for it: its place is for others until something is."""
        if turn.state is _State.GOING:
            turn.state = _State.RESTING
            turn.lane.resting += 1
            self.going -= 1
            self.go()

    def go_on(self, turn: Turn) -> None:
        """Something was heard for it. It may be one more than there are places: it had begun."""
        if turn.state is _State.RESTING:
            turn.state = _State.GOING
            turn.lane.resting -= 1
            self.going += 1

    def go(self) -> None:
        """Begin what may begin, one of each owner after the other."""
        passed = 0
        while passed < len(self._round):
            lane = self._round.popleft()
            if not lane.waiting:
                lane.listed = False
                continue
            self._round.append(lane)
            passed += 1
            if self._may_begin(lane):
                passed = 0
                self._begin(lane.waiting.popleft())

    def _may_begin(self, lane: Lane) -> bool:
        if lane.resting or lane.begun >= PER_OWNER or self.begun >= ALL:
            return False
        return self.going < (AT_ONCE // 2 if lane.begun else AT_ONCE)

    def _begin(self, turn: Turn) -> None:
        turn.state = _State.GOING
        turn.lane.begun += 1
        self.begun += 1
        self.going += 1
        turn.begin()


def _ended() -> None:
    pass
