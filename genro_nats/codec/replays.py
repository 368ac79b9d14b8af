"""Which seals were seen within the window in which they are good. No I/O."""

from __future__ import annotations

from typing import Final

from genro_nats.codec.signing import Flaw

__all__ = ["Window"]

_NS: Final = 1_000_000_000
_BUCKETS: Final = 64  # per window
_MOST: Final = 500_000  # seals remembered; 40 MB or so


class Window:
    """Takes each seal once, and only for ``seconds`` before and after the time in it.

    Under a load of which ``most`` seals don't cover the window, the older ones are
    refused by their age: the window shrinks, and nothing is taken twice.
    """

    def __init__(self, seconds: float, most: int = _MOST) -> None:
        self.seconds = seconds
        self._span = max(1, int(seconds * _NS))
        self._width = max(1, self._span // _BUCKETS)
        self._most = most
        self._buckets: dict[int, set[bytes]] = {}
        # The seals of a time from ``_begin`` to ``_end``, none of which is of the far future from ``_since`` on,
        # or too old before ``_good``.
        self._bucket: set[bytes] = set()
        self._begin = self._end = self._since = self._good = 0
        self._room = 0  # seals that it may hold beside all others
        self._floor = 0  # seals of an earlier time are forgotten, and so refused

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def timely(self, time: int, now: int) -> Flaw | None:
        """What is wrong with the time of a seal; ``now``: likewise nanoseconds since the epoch."""
        if -self._span <= now - time <= self._span and time >= self._floor:
            return None
        seconds = (now - time) / _NS
        where = "before" if seconds >= 0 else "after"
        shrunk = " (shortened: so many messages come)" if abs(now - time) <= self._span else ""
        return Flaw(
            "too old",
            f"it was signed {abs(seconds):.1f} s {where} the present time here, and messages are heard for "
            f"{self.seconds:g} s{shrunk}: it was delayed or is a replay, or the two clocks differ by about that "
            "much; set the clocks, or raise replay_window where it was refused",
        )

    def take(self, time: int, code: bytes, now: int) -> Flaw | None:
        """Remember a seal by its HMAC; what is wrong with it, if it came before or is too old."""
        if not (self._begin <= time < self._end and self._since <= now < self._good):
            if not -self._span <= now - time <= self._span or time < self._floor:
                return self.timely(time, now)
            self._find(time, now)
        bucket = self._bucket
        known = len(bucket)
        bucket.add(code)
        if known < len(bucket) <= self._room:
            return None
        if len(bucket) == known:
            return Flaw("replayed", "the same message came before: somebody recorded it and sent it again")
        self._forget(min(self._buckets) + 1)
        return None

    def _find(self, time: int, now: int) -> None:
        """The seals of about that time: looked for once for many of them."""
        number = time // self._width
        if number not in self._buckets:
            self._buckets[number] = set()
            self._forget((now - self._span) // self._width)
        self._bucket = found = self._buckets[number]
        self._room = self._most - len(self) + len(found)
        self._begin = max(number * self._width, self._floor, now - self._span)
        self._end = min((number + 1) * self._width, now + self._span + 1)
        self._since, self._good = now, number * self._width + self._span

    def _forget(self, first: int) -> None:
        """Drop what was sealed before the bucket ``first``."""
        for number in [number for number in self._buckets if number < first]:
            del self._buckets[number]
        self._floor = max(self._floor, first * self._width)
        self._begin = self._end = 0  # the present one may be among them
