"""Reads a NATS connection without nats-py's tasks and copies; what concerns the connection itself goes to nats-py.

nats-py wakes a task for what was received, looks at each message with several
regular expressions and copies large payloads five times. A ``Reader`` takes
its place as the protocol of the connection's transport: messages of our
subscriptions go to who hears them in the turn of the loop that received them,
bulk payloads from the receive buffer straight to who wants them, all else
(PING, INFO, errors, messages of others) is handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

__all__ = ["HEAD", "Feed", "Heard", "Raw", "Reader", "Taker"]

HEAD: Final = 48  # bytes of a payload that a taker is shown at once: a frame's header
_ROOM: Final = 256 * 1024
_AT_ONCE: Final = 256 * 1024  # bytes received in one turn of the loop, more or less
_LONGEST_LINE: Final = 8 * 1024  # bytes; a server sends at most 4 KiB, but for INFO, which nats-py gets
_DIGITS: Final = 19  # of more than any size
_PLAIN: Final = b"MSG"
_HEADED: Final = b"HMSG"

Feed = Callable[[memoryview], None]
Taker = Callable[[bytes, int], Feed | None]


Raw = tuple[bytes, bytes, bytes, bytes]  # subject, reply subject, data, headers as they came


class Heard(Protocol):
    """Who hears a subscription."""

    def came(self, messages: list[Raw]) -> object:
        """These came, one after the other. Never raises."""


class Reader(asyncio.BufferedProtocol):
    """``inner`` is the protocol that nats-py reads and writes with.

    ``heard``: by subscription number, who gets its messages whole, those that came together at
    once: doing one thing with all is faster than all with each. ``takers``: likewise, who is
    shown a payload's size and first bytes (``head`` of them), and gives the function that gets the
    rest, in pieces that are only lent to it; None: it is skipped.
    """

    def __init__(self, transport: asyncio.Transport, inner: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._inner = inner
        self.heard: dict[bytes, Heard] = {}
        self.takers: dict[bytes, Taker] = {}
        self.head = HEAD
        self._came: list[tuple[Heard, list[Raw]]] = []
        self._buffer = bytearray(_ROOM)
        self._room = memoryview(self._buffer)
        self._end = 0
        self._feed: Feed | None = None
        self._fed: Callable[[], object] | None = None  # called when the present payload is complete
        self._left = 0  # bytes of the present payload still to come, its CRLF included
        self._turn = 0  # bytes received in this turn of the loop
        self._resting = False
        self._amid = False  # what comes is the rest of a long line
        self._passing = False  # the present payload is nats-py's

    def forget(self, number: int) -> None:
        """A subscription has ended."""
        self.heard.pop(b"%d" % number, None)
        self.takers.pop(b"%d" % number, None)

    @property
    def arriving(self) -> tuple[int, int] | None:
        """What is here of a message that is not complete: it changes with each byte. None: there is none."""
        return (self._left, self._end) if self._left or self._end else None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        end = self._end + nbytes
        if end == len(self._room):  # else there was no more to read
            self._count(nbytes)
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
        came, self._came = self._came, []
        for heard, messages in came:
            heard.came(messages)

    def _heard(self, heard: Heard, words: list[bytes], data: bytes) -> None:
        headers = b""
        least = 4
        if words[0] == _HEADED:
            least, split = 5, int(words[-2])
            headers, data = data[:split], data[split:]
        message = words[1], words[3] if len(words) > least else b"", data, headers
        came = self._came
        if came and came[-1][0] is heard:
            came[-1][1].append(message)
        else:
            came.append((heard, [message]))

    def _count(self, nbytes: int) -> None:
        """Leave the loop to others after some bytes: uvloop would go on as long as reads fill the room."""
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
            self._complete()
        return at + count

    def _complete(self) -> None:
        fed, self._fed = self._fed, None
        self._feed = None  # it may hold the memory of what has ended
        if fed is not None:
            fed()

    def _line(self, at: int, end: int) -> int:
        """Deal with one line of the protocol; where it ends, or ``at`` when it has to be read on."""
        limit = min(end, at + _LONGEST_LINE)
        stop = self._buffer.find(b"\r\n", at, limit)
        if stop < 0:
            if limit == end:
                return at
            self._amid = True
            return self._pass_on(at, limit - 1)  # its last byte may be half of the ending
        if self._amid:
            self._amid = False
            return self._pass_on(at, stop + 2)
        words = bytes(self._room[at:stop]).split(b" ")
        if words[0] != _PLAIN and words[0] != _HEADED:
            return self._pass_on(at, stop + 2)
        return self._message(words, at, stop + 2, end)

    def _message(self, words: list[bytes], at: int, start: int, end: int) -> int:
        """Deal with a message, whose line begins at ``at`` and whose payload at ``start``; as ``_line``."""
        if not _is_sound(words):
            return self._pass_on(at, start)  # no server writes this; nats-py ends the connection
        number, length = words[2], int(words[-1])
        heard = self.heard.get(number)
        if heard is not None:
            stop = start + length
            if stop + 2 > end:
                return self._wait(heard, words, length, at, start)
            self._heard(heard, words, bytes(self._room[start:stop]))
            return stop + 2
        taker = self.takers.get(number) if words[0] == _PLAIN else None
        if taker is None:
            self._passing, self._left = True, length + 2
            return self._pass_on(at, start)
        shown = min(length, self.head)
        if end - start < shown:
            return at
        self._passing, self._left = False, length - shown + 2
        self._feed = taker(bytes(self._room[start : start + shown]), length)
        return start + shown

    def _wait(self, heard: Heard, words: list[bytes], length: int, at: int, start: int) -> int:
        """A message is to be read on: in the room, or in pieces where it is larger than that."""
        if start - at + length + 2 <= len(self._room):
            return at
        pieces: list[bytes] = []
        self._passing, self._left = False, length + 2
        self._feed = lambda piece: pieces.append(bytes(piece))
        self._fed = lambda: self._heard(heard, words, b"".join(pieces))
        return start

    def _pass_on(self, at: int, end: int) -> int:
        self._inner.data_received(bytes(self._room[at:end]))
        return end

    # -- what nats-py's own protocol goes on doing --------------------------

    def eof_received(self) -> bool:
        """Keep the transport open? Over TLS that can't be had, and asyncio complains to stderr of who asks."""
        keep = bool(self._inner.eof_received())
        return keep and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not isinstance(exc, OSError):
            exc = ConnectionAbortedError(repr(exc))  # nats-py takes only these for a loss
        self._inner.connection_lost(exc)
        # Who still knows this object must not keep what was under way, or who heard.
        self._feed = self._fed = None
        self.heard, self.takers = {}, {}

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _is_sound(words: list[bytes]) -> bool:
    """``MSG subject number [reply] length``, or ``HMSG subject number [reply] header-length length``."""
    least = 4 if words[0] == _PLAIN else 5
    if not (least <= len(words) <= least + 1 and words[2].isdigit() and _is_size(words[-1])):
        return False
    return least == 4 or (_is_size(words[-2]) and int(words[-2]) <= int(words[-1]))


def _is_size(word: bytes) -> bool:
    return word.isdigit() and len(word) < _DIGITS
