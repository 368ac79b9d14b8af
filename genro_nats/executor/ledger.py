"""The books of a pool: submitted = completed + failed + pending, always."""

from __future__ import annotations

import threading
from typing import Any

from genro_nats.errors import CallTimeoutError
from genro_nats.executor.bridge import Signal

__all__ = ["Ledger"]


class Ledger:
    """Counts calls. Cancelled and timed out ones are failed ones too. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submitted = self._completed = self._failed = 0
        self._cancelled = self._timed_out = self._rejected = 0
        self._seconds = 0.0
        self._idle: list[Signal] = []

    @property
    def pending(self) -> int:
        """Calls accepted and not yet answered."""
        return self._submitted - self._completed - self._failed

    def begin(self) -> None:
        """A call was accepted."""
        with self._lock:
            self._submitted += 1

    def reject(self) -> None:
        """A call was not accepted (and is in no other figure)."""
        with self._lock:
            self._rejected += 1

    def complete(self, seconds: float) -> None:
        """A call has its value, after so many seconds."""
        with self._lock:
            self._completed += 1
            self._seconds += seconds
            if self._idle:
                self._tell_idle()

    def fail(self, error: BaseException) -> None:
        """A call ended with this error; anything but an ``Exception`` means it was cancelled."""
        with self._lock:
            self._failed += 1
            if not isinstance(error, Exception):
                self._cancelled += 1
            elif isinstance(error, CallTimeoutError):
                self._timed_out += 1
            if self._idle:
                self._tell_idle()

    async def idle(self) -> None:
        """Wait until no call is pending."""
        with self._lock:
            if not self.pending:
                return
            signal = Signal()
            self._idle.append(signal)
        await signal.wait()

    def _tell_idle(self) -> None:
        if not self.pending:
            signals, self._idle = self._idle, []
            for signal in signals:
                signal.set()

    def facts(self) -> dict[str, Any]:
        """The figures, those of the former executors first; durations are of completed calls."""
        with self._lock:
            average = self._seconds / self._completed * 1000 if self._completed else 0.0
            return {
                "pending": self.pending,
                "submitted": self._submitted,
                "completed": self._completed,
                "failed": self._failed,
                "avg_duration_ms": average,
                "cancelled": self._cancelled,
                "timed_out": self._timed_out,
                "rejected": self._rejected,
            }
