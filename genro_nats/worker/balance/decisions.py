"""What is told, asked for, handed on and refused between the workers of a pool: pure decisions, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

__all__ = [
    "AT_ONCE",
    "LOBBY",
    "MAX_HOPS",
    "PATIENCE",
    "WORTH",
    "Fate",
    "Waiting",
    "Wish",
    "delay",
    "fate",
    "may_move",
    "share",
    "spread",
    "wanted",
    "worth",
]

MAX_HOPS: Final = 3  # how often a call is handed on at most; then it stays where it is
PATIENCE: Final = 0.2  # seconds in which a call that must not queue may find a free child, here or elsewhere
LOBBY: Final = (
    0.05  # seconds in which a large call may be taken elsewhere before its arguments are pulled here
)
AT_ONCE: Final = 16  # brief calls handed on together at most, beyond those that can begin
EASE: Final = 0.002  # seconds; what waits behind brief calls only is not worth a word before
WORTH: Final = 0.01  # seconds; less than that behind short calls only is cheaper waited for than moved
PAUSE: Final = 0.005  # seconds between two words to all
OLDER: Final = 0.05  # seconds that a call waits longer elsewhere than any here, for it to come first
_CROWD: Final = 8  # workers that may all answer the same word at once


class Fate(Enum):
    """What becomes of a call when it comes."""

    WAIT = auto()  # it begins at once or when a child is free
    HURRY = auto()  # it waits for ``PATIENCE`` only
    REFUSE = auto()  # its caller sends it again, or gives up if it must not queue


_WAIT: Final = Fate.WAIT  # members of an enum are slow to look up


def fate(*, held: int, limit: int, fits: bool, may_queue: bool) -> Fate:
    """``held``: calls that are here; ``fits``: there is memory for one more of its size."""
    if held >= limit or not fits:
        return Fate.REFUSE
    return _WAIT if may_queue else Fate.HURRY


def may_move(hops: int) -> bool:
    """May a call that was handed on so often be handed on once more?"""
    return hops < MAX_HOPS


def delay(*, brief: bool, since: float) -> float:
    """Seconds until others are told that calls wait here; ``since`` they were told last.

    ``brief``: all that runs here ends soon, as far as is known.
    """
    return max(EASE if brief else 0.0, PAUSE - since)


def worth(*, short: bool, waited: float) -> bool:
    """Should calls move at all? ``short``: all that runs here is expected to be; ``waited``: the oldest, seconds."""
    return not short or waited >= WORTH


def spread(peers: int) -> float:
    """Seconds over which the answers of so many workers to one word are spread."""
    return 0.0 if peers <= _CROWD else peers * 0.0001


class Waiting(NamedTuple):
    """What is known of the calls that wait somewhere: how many, and since when the oldest does (any clock)."""

    calls: int
    since: float


class Wish(NamedTuple):
    """Whom to ask for how many calls; ``older``: they are to go before younger ones that wait here."""

    peer: str
    calls: int
    older: bool


def wanted(waiting: Mapping[str, Waiting], asked: Mapping[str, int], room: int, own: Waiting) -> Wish | None:
    """Whom to ask next; None: nobody.

    ``waiting``: calls by who has them; ``asked``: what was asked for and has not come;
    ``room``: calls that could begin here at once; ``own``: those that wait here.
    """
    crowded = [(it.since, peer) for peer, it in waiting.items() if it.calls > 0 and peer not in asked]
    if not crowded:
        return None
    since, peer = min(crowded)
    if (room := room - sum(asked.values())) > 0:
        return Wish(peer, room, older=False)
    if own.calls > 0 and not asked and since < own.since - OLDER:
        return Wish(peer, 1, older=True)
    return None


def share(asked: int, waiting: int, *, brief: bool) -> int:
    """How many of ``waiting`` calls go to a worker that could begin ``asked`` of them at once.

    ``brief``: they end so soon that a few more may wait there as well as here.
    """
    more = min(AT_ONCE, waiting // 2) if brief else 0
    return max(0, min(waiting, max(asked, more)))
