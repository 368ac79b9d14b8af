"""What a worker knows of the others of its pool. Pure bookkeeping, no I/O; times are event loop times."""

from __future__ import annotations

from typing import Final

from genro_nats.worker.balance.decisions import Waiting

__all__ = ["Peers"]

LIFE: Final = 7.0  # seconds after which one that is not heard of counts as gone
_FRESH: Final = 2.0  # seconds for which a word about waiting calls holds
_ANSWER: Final = 1.0  # seconds after which what was asked for is no longer expected


class Peers:
    """The others by their address: when they were heard, how many calls wait there, what they were asked for."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._waiting: dict[str, tuple[Waiting, float]] = {}
        self._asked: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, peer: str, waiting: Waiting, now: float) -> bool:
        """One says which calls wait there, a negative number when it leaves; is it a new one?"""
        new = peer not in self._heard
        if waiting.calls < 0:
            self.forget(peer)
            return False
        self._heard[peer] = now
        if waiting.calls:
            self._waiting[peer] = waiting, now
        else:
            self._waiting.pop(peer, None)
        return new

    def forget(self, peer: str) -> None:
        """It is gone."""
        for known in (self._heard, self._waiting, self._asked):
            known.pop(peer, None)

    def ask(self, peer: str, count: int, now: float) -> None:
        """It was asked for that many calls."""
        self._asked[peer] = count, now

    def answered(self, peer: str) -> None:
        """It sent what it had to send."""
        self._asked.pop(peer, None)

    def unanswered(self) -> None:
        """One of those asked is gone, whichever it is: those that are there will speak up again."""
        self._asked.clear()
        self._waiting.clear()

    def asked(self, now: float) -> dict[str, int]:
        """What was asked for and may still come."""
        return {peer: count for peer, (count, at) in self._asked.items() if now - at < _ANSWER}

    def waiting(self, now: float) -> dict[str, Waiting]:
        """Where calls wait, as far as that is known."""
        return {peer: waiting for peer, (waiting, at) in self._waiting.items() if now - at < _FRESH}

    def oldest_asked(self, now: float) -> float:
        """Since when the oldest call waits of those that were asked for."""
        return min((w.since for peer, (w, _) in self._waiting.items() if peer in self._asked), default=now)

    @property
    def some_wait(self) -> bool:
        """May calls wait somewhere? Quicker than ``waiting``."""
        return bool(self._waiting)

    def expire(self, now: float) -> None:
        """Forget those who were not heard of for long."""
        for peer, at in list(self._heard.items()):
            if now - at > LIFE:
                self.forget(peer)
