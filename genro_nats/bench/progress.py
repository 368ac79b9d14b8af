"""One line on stderr that says what is being measured."""

from __future__ import annotations

import sys
from typing import TextIO

__all__ = ["Progress"]


class Progress:
    """``progress("calls: round 2 of 5")``; on a terminal each text replaces the last."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()

    def __call__(self, text: str) -> None:
        """Say what is being done now."""
        self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Nothing is being done any more."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
