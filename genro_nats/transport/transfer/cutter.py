"""Reads bulk messages off a NATS connection without nats-py's copies; the rest goes to nats-py.

nats-py copies each payload five times. A ``Cutter`` takes its place as the
protocol of the connection's transport: payloads of chosen subscriptions go
from the receive buffer straight to who wants them, all else is handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

__all__ = ["HEAD", "Cutter", "Feed", "Taker"]

HEAD: Final = 48  # bytes of a payload that a taker is shown at once: a frame's header
_ROOM: Final = 256 * 1024
_AT_ONCE: Final = 256 * 1024  # bytes received in one turn of the loop, more or less
_LONGEST_LINE: Final = 8 * 1024  # bytes; a server sends at most 4 KiB, but for INFO, which nats-py gets

Feed = Callable[[memoryview], None]
Taker = Callable[[bytes, int], Feed | None]


class Cutter(asyncio.BufferedProtocol):
    """``takers``: by subscription number, who is shown a message's first bytes and its size.

    A taker gives the function that gets the payload after those first bytes, in
    pieces that are only lent to it; None: the payload is skipped.
    ``inner`` is the protocol that nats-py reads and writes with; ``head``: how many bytes
    are shown first.
    """

    def __init__(
        self, transport: asyncio.Transport, inner: Any, takers: dict[int, Taker], head: int = HEAD
    ) -> None:
        self._head = head
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._inner = inner
        self.takers = takers
        self._room = memoryview(bytearray(_ROOM))
        self._end = 0
        self._feed: Feed | None = None
        self._left = 0  # bytes of the present payload still to come, its CRLF included
        self._turn = 0  # bytes received in this turn of the loop
        self._resting = False
        self._amid = False  # what comes is the rest of a long line
        self._passing = False  # the present payload is nats-py's

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._count(nbytes)
        end = self._end + nbytes
        at = 0
        while at < end:
            step = self._payload(at, end) if self._left else self._line(at, end)
            if step == at:
                break
            at = step
        rest = end - at
        if rest and at:
            self._room[:rest] = bytes(self._room[at:end])
        self._end = rest

    def _count(self, nbytes: int) -> None:
        """Leave the loop to others after some bytes: uvloop would go on as long as there is something to read."""
        if not self._turn:
            self._loop.call_soon(self._next_turn)
        self._turn += nbytes
        if self._turn >= _AT_ONCE and not self._resting:
            self._resting = True
            self._transport.pause_reading()

    def _next_turn(self) -> None:
        self._turn = 0
        if self._resting:
            self._resting = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _payload(self, at: int, end: int) -> int:
        """Deal with payload bytes from ``at``; where they end."""
        count = min(self._left, end - at)
        if self._passing:
            self._inner.data_received(bytes(self._room[at : at + count]))
        elif self._feed is not None:
            useful = min(count, self._left - 2)
            if useful > 0:
                self._feed(self._room[at : at + useful])
        self._left -= count
        if not self._left:
            self._feed = None  # it may hold the memory of what has ended
        return at + count

    def _line(self, at: int, end: int) -> int:
        """Deal with one line of the protocol; where it ends, or ``at`` when it has to be read on."""
        limit = min(end, at + _LONGEST_LINE)
        line, ending, _ = bytes(self._room[at:limit]).partition(b"\r\n")
        if not ending:
            if limit == end:
                return at
            self._amid = True
            return self._pass_on(at, limit - 1)  # its last byte may be half of the ending
        size = len(line) + 2
        amid, self._amid = self._amid, False
        if amid or not line.startswith((b"MSG ", b"HMSG ")):
            return self._pass_on(at, at + size)
        words = line.split(b" ")
        if len(words) < 4 or not (words[2].isdigit() and words[-1].isdigit()):
            return self._pass_on(at, at + size)  # no server writes this; nats-py ends the connection
        length = int(words[-1])
        taker = self.takers.get(int(words[2])) if words[0] == b"MSG" else None
        if taker is None:
            self._passing, self._left = True, length + 2
            return self._pass_on(at, at + size)
        start = at + size
        shown = min(length, self._head)
        if end - start < shown:
            return at
        self._passing, self._left = False, length - shown + 2
        self._feed = taker(bytes(self._room[start : start + shown]), length)
        return start + shown

    def _pass_on(self, at: int, end: int) -> int:
        self._inner.data_received(bytes(self._room[at:end]))
        return end

    # -- what nats-py's own protocol goes on doing --------------------------

    def eof_received(self) -> Any:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
