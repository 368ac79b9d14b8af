"""The line of those who wait until fewer tasks are queued."""

from __future__ import annotations

from collections import deque

from genro_nats.executor.bridge import Signal

__all__ = ["Room"]


class Room:
    """Woken one by one, in order. Everything is called under the store's lock, but for waiting itself."""

    def __init__(self) -> None:
        self._line: deque[Signal] = deque()

    def __bool__(self) -> bool:
        """Does anybody wait?"""
        return bool(self._line)

    def join(self, *, first: bool = False) -> Signal:
        """A place in the line, or at its head for one that was woken in vain."""
        signal = Signal()
        if first:
            self._line.appendleft(signal)
        else:
            self._line.append(signal)
        return signal

    def leave(self, signal: Signal) -> None:
        """Wait no longer; a place that had just been offered goes to the next."""
        if signal in self._line:
            self._line.remove(signal)
        else:
            self.freed()

    def freed(self) -> None:
        """One more may come."""
        if self._line:
            self._line.popleft().set()

    def all_freed(self) -> None:
        """Wake everybody."""
        while self._line:
            self.freed()
