"""Frames over a socket pair: the asyncio end, and the blocking end.

Each frame is preceded by its length as a big-endian Q whose top bit says
"sent ahead": the receiver must take a token before it starts that call
(``executor/children/link.py`` tells why).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from genro_nats.codec.frame import Buffer, size

__all__ = ["AHEAD", "BlockingPipe", "PipeProtocol", "prefix"]

AHEAD: Final = 1 << 63
_PREFIX: Final = struct.Struct("!Q")
_ROOM: Final = 256 * 1024  # bytes read at once; a larger frame gets a buffer of its own


def prefix(length: int, ahead: bool = False) -> bytes:
    """The eight bytes before a frame of that many bytes."""
    return _PREFIX.pack(length | AHEAD if ahead else length)


class _Parser:
    """Cuts a byte stream into frames; a large frame is received right into its own bytearray."""

    __slots__ = ("_big", "_big_at", "_emit", "_end", "_room", "_view")

    def __init__(self, emit: Callable[[Buffer, bool], None]) -> None:
        self._emit = emit
        self._room = bytearray(_ROOM)
        self._view = memoryview(self._room)
        self._end = 0
        self._big: bytearray | None = None
        self._big_at = 0

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._big is not None:
            return memoryview(self._big)[self._big_at :]
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """``count`` bytes were put where ``space`` said."""
        if self._big is None:
            self._end += count
            self._cut()
            return
        self._big_at += count
        if self._big_at == len(self._big):
            done, self._big = self._big, None
            self._emit(done, False)

    def _cut(self) -> None:
        at, end, room = 0, self._end, self._room
        while end - at >= 8:
            (length,) = _PREFIX.unpack_from(room, at)
            ahead = length >= AHEAD
            length &= ~AHEAD
            start = at + 8
            if start + length > end:
                if length > _ROOM - 8:
                    self._begin_big(start, end, length)
                    return
                break
            at = start + length
            self._emit(bytes(self._view[start:at]), ahead)
        if at:
            room[: end - at] = room[at:end]
            self._end = end - at

    def _begin_big(self, start: int, end: int, length: int) -> None:
        self._big = bytearray(length)
        self._big_at = end - start
        self._big[: self._big_at] = self._view[start:end]
        self._end = 0


class PipeProtocol(asyncio.BufferedProtocol):
    """The asyncio end: calls ``on_frame(data)`` for each frame, ``on_end()`` once at the end."""

    def __init__(self, on_frame: Callable[[Buffer, bool], None], on_end: Callable[[], None]) -> None:
        self._parser = _Parser(on_frame)
        self._on_end = on_end
        self.transport: asyncio.Transport | None = None
        self._broken: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parser.space()

    def buffer_updated(self, nbytes: int) -> None:
        self._parser.received(nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.transport is not None:
            self._broken = self.transport.get_extra_info("socket")
        self.transport = None
        self._on_end()

    def rescue(self) -> None:
        """Read what the other end had still sent; to be called in ``on_end``.

        A write that fails ends the connection with those frames unread.
        """
        broken, self._broken = self._broken, None
        if broken is not None:
            with contextlib.suppress(Exception):  # whatever broke it may be in those bytes
                while count := os.readv(broken.fileno(), [self._parser.space()]):
                    self._parser.received(count)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Write one frame, given as its chunks; nothing happens once the other end is gone."""
        transport = self.transport
        if transport is None:
            return
        length = sum(map(size, parts))
        if length <= _ROOM:
            transport.write(b"".join([prefix(length), *parts]))
            return
        transport.write(prefix(length))
        for part in parts:
            if size(part):
                transport.write(part)

    def send_ahead(self, frames: Sequence[Sequence[Buffer]]) -> None:
        """Write several small frames, marked as sent ahead, in one piece."""
        pieces: list[Buffer] = []
        for parts in frames:
            pieces.append(prefix(sum(map(size, parts)), ahead=True))
            pieces.extend(parts)
        if self.transport is not None:
            self.transport.write(b"".join(pieces))


class BlockingPipe:
    """The blocking end, in a child: ``recv()`` the next frame, ``send(chunks)``."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._ready: list[tuple[Buffer, bool]] = []
        self._parser = _Parser(lambda data, ahead: self._ready.append((data, ahead)))
        self._next = 0

    def recv(self) -> tuple[Buffer, bool] | None:
        """The next frame and whether it was sent ahead; None when the other end is closed."""
        while self._next >= len(self._ready):
            self._ready.clear()
            self._next = 0
            if not self._fill():
                return None
        frame = self._ready[self._next]
        self._next += 1
        return frame

    def readable(self) -> bool:
        """Would ``recv`` find something without waiting for the other end?"""
        return self._next < len(self._ready) or bool(select.select([self.sock], [], [], 0)[0])

    def _fill(self) -> bool:
        try:
            count = self.sock.recv_into(self._parser.space())
        except ConnectionResetError:
            return False
        self._parser.received(count)
        return count > 0

    def send(self, parts: Sequence[Buffer]) -> None:
        """Write one frame, given as its chunks; raises OSError when nobody reads any more."""
        length = sum(map(size, parts))
        if length <= _ROOM:
            self.sock.sendall(b"".join([prefix(length), *parts]))
            return
        self.sock.sendall(prefix(length))
        for part in parts:
            self.sock.sendall(part)
