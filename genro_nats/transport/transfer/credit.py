"""How far a payload has come, what may be sent, and when to ask again or give up. No I/O."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["CHUNK", "WINDOW", "Step", "Window", "chunk_size"]

CHUNK: Final = 512 * 1024  # bytes; measured: larger ones gain nothing, smaller ones cost
WINDOW: Final = 4 * 1024 * 1024  # bytes under way at most, for each pull
ASK_AGAIN: Final = 2.0  # seconds without a byte after which the puller asks anew
GIVE_UP: Final = 10.0  # seconds without a byte after which the owner counts as lost
ABSENT: Final = 2.0  # seconds for which nobody may hear the owner's subject: it may be on its way back
RETRY_ABSENT: Final = 0.25  # seconds between two questions meanwhile


def chunk_size(max_payload: int, header: int) -> int:
    """Bytes of a payload that one message carries, where the server takes ``max_payload``."""
    return max(1, min(CHUNK, max_payload - header))


class Step(Enum):
    """What a puller does next."""

    WAIT = "wait"
    ASK = "ask"
    GIVE_UP = "give up"


class Window:
    """One pull: ``got`` bytes of ``size`` have come, up to ``limit`` may be sent.

    Times are of the event loop; bytes that come are progress, nothing else is.
    """

    def __init__(self, size: int, now: float, window: int = WINDOW) -> None:
        self.size = size
        self.got = 0
        self.limit = 0
        self._window = window
        self._moved = self._asked = now
        self._absent_since: float | None = None
        self._online = True

    @property
    def complete(self) -> bool:
        """Has all of it come?"""
        return self.got >= self.size

    def ask(self, now: float) -> int:
        """Ask for the rest, from ``got`` on; up to where it may be sent."""
        self._asked = now
        self.limit = min(self.size, self.got + self._window)
        return self.limit

    def fits(self, offset: int, length: int) -> bool:
        """Is this piece the one that comes next, and within what was granted?"""
        return length > 0 and offset == self.got and offset + length <= self.limit

    def add(self, length: int, now: float) -> None:
        """Bytes came."""
        self.got += length
        self._moved = now
        self._absent_since = None

    def grant(self) -> int | None:
        """Up to where more may be sent, once half of the window has come; None: no news."""
        if self.limit >= self.size or self.limit - self.got > self._window // 2:
            return None
        self.limit = min(self.size, self.got + self._window)
        return self.limit

    def absent(self, now: float) -> None:
        """The server says that nobody hears the owner's subject."""
        if self._absent_since is None:
            self._absent_since = now

    def look(self, now: float, online: bool) -> Step:
        """What to do now; ``online``: is there a connection? While there is none, no time passes."""
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
        if now - self._moved >= GIVE_UP:
            return Step.GIVE_UP
        return Step.ASK if now - max(self._moved, self._asked) >= ASK_AGAIN else Step.WAIT
