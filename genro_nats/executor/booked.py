"""A stream in the books of its pool: who reads it, and how it ended."""

from __future__ import annotations

import contextlib
import threading
import weakref
from time import perf_counter
from typing import Any

from genro_nats.executor.admission import Slots, closed_error
from genro_nats.executor.bridge import current_task, has_ended
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.ledger import Ledger

__all__ = ["BookedSource"]


class BookedSource:
    """A source whose end is written into the books. Leaving early counts as completed."""

    def __init__(self, name: str, source: StreamSource, ledger: Ledger, slots: Slots) -> None:
        self._reading = False
        self._reader: weakref.ref[Any] | None = None
        self._name = name
        self._source = source
        self._ledger = ledger
        self._slots = slots
        self._begun = perf_counter()
        self._lock = threading.Lock()
        self._booked = False
        self._over = False

    @property
    def forsaken(self) -> bool:
        """Can nobody read it while the present task waits?"""
        if self._reader is None:
            return False
        reader = self._reader()
        return reader is None or reader is current_task() or has_ended(reader)

    async def receive(self) -> Any:
        if self._over:
            raise closed_error(self._name)
        self._reading = True
        self._reader = weakref.ref(current_task())
        try:
            return await self._source.receive()
        except StopAsyncIteration:
            self._book(None)
            raise
        except BaseException as error:
            self._book(error)
            raise
        finally:
            self._reading = False
            if self._over:
                self.end()

    async def aclose(self) -> None:
        try:
            await self._source.aclose()
        finally:
            self._book(None)

    def abort(self) -> None:
        try:
            self._source.abort()
        finally:
            self._book(None)

    async def leave(self) -> None:
        """The pool closes, and nobody will receive."""
        begun, self._over = self._over, True
        try:
            if not begun and not self._booked:
                with contextlib.suppress(Exception):  # the reader's, who left it to the pool
                    await self._source.aclose()
        finally:
            self._book(None)

    def end(self) -> None:
        """The pool closes without waiting. What is being received is left to the pool's own end."""
        self._over = True
        if not self._reading and not self._booked:
            with contextlib.suppress(Exception):  # its reader may be back this moment: then it ends there
                self.abort()

    def _book(self, error: BaseException | None) -> None:
        with self._lock:
            if self._booked:
                return
            self._booked = True
        if error is None:
            self._ledger.complete(perf_counter() - self._begun)
        else:
            self._ledger.fail(error)
        self._slots.release()
