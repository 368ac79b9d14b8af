"""How far a payload has come, what may be sent, and when to ask again or give up. No I/O."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Final

__all__ = ["CHUNK", "WINDOW", "Pace", "Step", "Window", "chunk_size"]

CHUNK: Final = 512 * 1024  # bytes; measured: larger ones gain nothing, smaller ones cost
WINDOW: Final = 4 * 1024 * 1024  # bytes under way at most, for each pull
ALL: Final = 4 * WINDOW  # bytes under way at most, for all: a server drops who has much more waiting
START: Final = 256 * 1024  # bytes under way for all, while nothing is known of the line
LEAST: Final = 64 * 1024  # bytes under way for a pull on the slowest line
AHEAD: Final = 1.0  # seconds from a grant to its last byte, towards which windows grow and shrink
ASK_AGAIN: Final = 2.0  # seconds without a sign after which the puller asks anew
PATIENCE: Final = 5.0  # the same, while other things come on the line
GIVE_UP: Final = (
    10.0  # seconds without a sign of the owner after which it is lost; twice that while others come
)
STARVED: Final = 60.0  # seconds without a byte after which a pull ends, whatever signs its owner gives
ABSENT: Final = 2.0  # seconds for which nobody may hear the owner's subject: it may be on its way back
RETRY_ABSENT: Final = 0.25  # seconds between two questions meanwhile

_NONE: Final = (inf, 0.0)


def chunk_size(max_payload: int, header: int) -> int:
    """Bytes of a payload that one message carries, where the server takes ``max_payload``."""
    return max(1, min(CHUNK, max_payload - header))


class Step(Enum):
    """What a puller does next."""

    WAIT = "wait"
    ASK = "ask"
    GIVE_UP = "give up"  # its owner is gone
    STARVED = "starved"  # its owner lives, and sends nothing of it


class Pace:
    """How much may be under way, shared by the pulls of a line and kept from one to the next."""

    def __init__(self) -> None:
        self._known = START

    def most(self, count: int) -> int:
        """Bytes that each of ``count`` pulls may have under way at most."""
        return max(LEAST, min(WINDOW, ALL // max(1, count)))

    def start(self, count: int) -> int:
        """What one more begins with, so that there are ``count``."""
        return max(LEAST, min(self.most(count), self._known // max(1, count)))

    def learn(self, widths: int) -> None:
        """What all pulls had under way together when one of them ended."""
        self._known = widths


class Window:
    """One pull: ``got`` bytes of ``size`` have come, up to ``limit`` may be sent.

    Times are of the event loop; bytes that come are progress, nothing else is. At first ``start`` bytes
    are under way, at most ``window``; from then on as many as come within a second: on a slow line
    more would only wait behind each other, and behind them whatever else is to come.
    """

    def __init__(self, size: int, now: float, window: int = WINDOW, start: int | None = None) -> None:
        self.size = size
        self.got = 0
        self.limit = 0
        self.most = window
        self.width = window if start is None else start
        self._granted: tuple[float, float] = _NONE  # the grant that is measured: up to where, since when
        self._moved = self._asked = self._told = now
        self._absent_since: float | None = None
        self._online = True

    @property
    def complete(self) -> bool:
        """Has all of it come?"""
        return self.got >= self.size

    def ask(self, now: float) -> int:
        """Ask for the rest, from ``got`` on; up to where it may be sent."""
        if self.limit:  # not the first question
            self.width = min(self.width, START)  # what was under way may be lost, or wait before this
        self._asked = now
        self.limit = min(self.size, self.got + self.width)
        self._granted = (self.limit, now)
        return self.limit

    def fits(self, offset: int, length: int) -> bool:
        """Is this piece the one that comes next, and within what was granted?"""
        return length > 0 and offset == self.got and offset + length <= self.limit

    def add(self, length: int, now: float) -> None:
        """Bytes came."""
        self.got += length
        self._moved = now
        self._absent_since = None
        end, since = self._granted
        if self.got >= end:
            self._granted = _NONE
            self._adapt(now - since)

    def _adapt(self, seconds: float) -> None:
        """A grant took so long to come in full."""
        factor = min(2.0, AHEAD / seconds) if seconds > 0 else 2.0
        self.width = max(min(LEAST, self.most), min(self.most, int(self.width * factor)))

    def grant(self, now: float) -> int | None:
        """Up to where more may be sent, once half of the window has come; None: no news."""
        if self.limit >= self.size or self.limit - self.got > self.width // 2:
            return None
        self.limit = min(self.size, self.got + self.width)
        if self._granted is _NONE:
            self._granted = (self.limit, now)
        return self.limit

    def absent(self, now: float) -> None:
        """The server says that nobody hears the owner's subject."""
        if self._absent_since is None:
            self._absent_since = now

    def told(self, now: float) -> None:
        """The owner says that the pull waits for its turn."""
        self._told = now
        self._absent_since = None

    def silent(self, now: float) -> float:
        """Seconds without a sign for this pull."""
        return now - max(self._moved, self._told)

    def look(self, now: float, online: bool, owner: float = -inf, line: float = -inf) -> Step:
        """What to do now.

        ``online``: is there a connection? While there is none, no time passes. ``owner``, ``line``: when
        something was last heard of the owner, and on the line: this pull's bytes may be queued behind it.
        """
        if not online:
            self._online = False
            return Step.WAIT
        if not self._online:
            self._online, self._moved, self._absent_since = True, now, None
            return Step.ASK
        if self._absent_since is not None:
            if now - self._absent_since >= ABSENT:
                return Step.GIVE_UP
            return Step.ASK if now - self._asked >= RETRY_ABSENT else Step.WAIT
        own = self.silent(now)
        if self._lost(own, now - owner, now - line):
            return Step.GIVE_UP
        if now - self._moved >= STARVED:
            return Step.STARVED
        own = min(own, now - self._asked)
        patience = ASK_AGAIN if now - max(owner, line) >= ASK_AGAIN else PATIENCE
        return Step.ASK if own >= patience else Step.WAIT

    def _lost(self, own: float, owner: float, line: float) -> bool:
        """Is the owner gone, after so many seconds without a sign for this pull, of it, and on the line?"""
        silent = min(own, owner)
        return silent >= GIVE_UP if min(silent, line) >= GIVE_UP else silent >= 2 * GIVE_UP
