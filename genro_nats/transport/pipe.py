"""Frames over a socket pair: the end in an event loop, and the blocking end.

Each frame is preceded by a big-endian Q: its length, and two bits. The top
bit says "sent ahead": the receiver must take a token before it starts that
call (``executor/children/child.py`` tells why). The next bit says "shared":
the frame is not in the stream but in memory whose descriptor came with these
eight bytes.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import logging
import os
import resource
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from genro_nats.codec.frame import Buffer, size
from genro_nats.transport import shared

__all__ = ["BlockingPipe", "Parts", "Pipe", "detached"]

AHEAD: Final = 1 << 63
SHARED: Final = 1 << 62
LARGE: Final = 256 * 1024  # bytes; a larger frame goes through shared memory
_LENGTH: Final = SHARED - 1
_PREFIX: Final = struct.Struct("!Q")
_ROOM: Final = LARGE + 8
_FDS: Final = socket.CMSG_SPACE(16 * array.array("i").itemsize)

_can_share: Final = shared.available()

log: Final = logging.getLogger("genro_nats.transport")

Emit = Callable[[Buffer, bool], None]


class UnreceivableError(Exception):
    """A large frame came, and this process can't have its memory."""


def prefix(length: int, flags: int = 0) -> bytes:
    """The eight bytes before a frame of that many bytes."""
    return _PREFIX.pack(length | flags)


Parts = Sequence[Buffer] | shared.StoredFrame


def _length(parts: Parts) -> int:
    return parts.length if isinstance(parts, shared.StoredFrame) else sum(map(size, parts))


def _shared(parts: Parts) -> int | None:
    """The parts in shared memory; None where that is not to be had, and the stream has to do."""
    if isinstance(parts, shared.StoredFrame):
        return os.dup(parts.fd)
    try:
        return shared.stored(parts) if _can_share else None
    except OSError:
        return None


def detached(parts: Sequence[Buffer]) -> Parts:
    """The same frame, which what becomes of its buffers no longer changes."""
    if all(type(part) is bytes for part in parts):
        return parts
    if _can_share and _length(parts) > LARGE:
        with contextlib.suppress(OSError):
            frame = shared.StoredFrame()
            for part in parts:
                frame.write(memoryview(part).cast("B"))
            return frame
    return [b"".join(parts)]


def _in_stream(parts: Parts) -> Sequence[Buffer]:
    return [parts.view()] if isinstance(parts, shared.StoredFrame) else parts


def _mapped(fd: int, length: int) -> memoryview:
    try:
        return shared.mapped(fd, length)
    except OSError as error:
        why = (
            _no_descriptor()
            if error.errno == errno.EMFILE
            else f"{length:,} bytes of memory: {error.strerror}"
        )
        raise UnreceivableError(why) from None


def _no_descriptor() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"no file descriptor is left of {limit}; allow more (ulimit -n), or have fewer open"


class _Parser:
    """Cuts a byte stream into frames; where a large one has to come in the stream, right into its own bytearray."""

    __slots__ = ("_big", "_big_at", "_emit", "_end", "_fds", "_room", "_view")

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._room = bytearray(_ROOM)
        self._view = memoryview(self._room)
        self._end = 0
        self._big: bytearray | None = None
        self._big_at = 0
        self._fds: deque[int] = deque()

    def read(self, sock: socket.socket) -> int:
        """Receive once, and emit what is complete; the bytes received, 0 at the end of the stream.

        Raises:
            UnreceivableError: of a large frame only the announcement came; this stream is of no more use.
        """
        count, ancillary, flags, _ = sock.recvmsg_into([self._space()], _FDS)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC:
            raise UnreceivableError(_no_descriptor())
        self._received(count)
        return count

    def close(self) -> None:
        """Close descriptors that came and were not used."""
        while self._fds:
            os.close(self._fds.popleft())

    def _space(self) -> memoryview:
        if self._big is not None:
            return memoryview(self._big)[self._big_at :]
        return self._view[self._end :]

    def _received(self, count: int) -> None:
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
            (entry,) = _PREFIX.unpack_from(room, at)
            length = entry & _LENGTH
            start = at + 8
            if entry & SHARED:
                at = start
                self._emit(_mapped(self._fds.popleft(), length), entry >= AHEAD)
                continue
            if start + length > end:
                if length > LARGE:
                    self._begin_big(start, end, length)
                    return
                break
            at = start + length
            self._emit(bytes(self._view[start:at]), entry >= AHEAD)
        if at:
            room[: end - at] = room[at:end]
            self._end = end - at

    def _begin_big(self, start: int, end: int, length: int) -> None:
        self._big = bytearray(length)
        self._big_at = end - start
        self._big[: self._big_at] = self._view[start:end]
        self._end = 0


class Pipe:
    """The end in an event loop: calls ``on_frame(data, ahead)`` for each frame, ``on_end()`` once at the end.

    It reads the socket itself: a transport of asyncio can't receive descriptors.
    """

    def __init__(self, sock: socket.socket, on_frame: Emit, on_end: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._parser = _Parser(on_frame)
        self._on_end = on_end
        self._waiting: deque[tuple[memoryview, int | None]] = deque()
        self._writing = False
        self.closed = False
        self.fault = ""  # why it ended, if that was not the other end's doing
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, parts: Parts) -> None:
        """Write one frame, given as its chunks; nothing happens once the other end is gone."""
        length = _length(parts)
        if length > LARGE and (fd := _shared(parts)) is not None:
            self._write(prefix(length, SHARED), fd)
            return
        parts = _in_stream(parts)
        if length <= LARGE:
            self._write(b"".join([prefix(length), *parts]))
        else:
            self._write(prefix(length))
            for part in parts:
                self._write(part)

    def send_ahead(self, frames: Sequence[Parts]) -> None:
        """Write several frames, marked as sent ahead, in one piece where they are small."""
        pieces: list[Buffer] = []
        for parts in frames:
            length = _length(parts)
            if length > LARGE and (fd := _shared(parts)) is not None:
                self._write(b"".join(pieces))
                pieces.clear()
                self._write(prefix(length, AHEAD | SHARED), fd)
            else:
                pieces.append(prefix(length, AHEAD))
                pieces.extend(_in_stream(parts))
        self._write(b"".join(pieces))

    def close(self) -> None:
        """Close this end; ``on_end`` is called soon, unless the loop is closed."""
        if not self.closed:
            self._finish()
            if not self._loop.is_closed():
                self._loop.call_soon(self._on_end)

    def _write(self, data: Buffer, fd: int | None = None) -> None:
        if self.closed:
            if fd is not None:
                os.close(fd)
            return
        view = memoryview(data).cast("B")
        if fd is None and not self._waiting:
            # The usual case: the socket takes it whole.
            with contextlib.suppress(OSError):
                view = view[self._sock.send(view) :]
            if not view:
                return
        # Who sent it may go on with its memory.
        self._waiting.append((view if view.readonly else memoryview(bytes(view)), fd))
        if not self._writing:
            self._writable()

    def _writable(self) -> None:
        waiting = self._waiting
        while waiting:
            view, fd = waiting.popleft()
            try:
                sent = self._sock.send(view) if fd is None else socket.send_fds(self._sock, [view], [fd])
            except (BlockingIOError, InterruptedError):
                waiting.appendleft((view, fd))
                break
            except OSError:
                # The other end is gone; the reader will notice in its turn.
                waiting.append((view, fd))
                self._drop_waiting()
                break
            if fd is not None:
                os.close(fd)
            if sent < len(view):
                waiting.appendleft((view[sent:], None))
        self._watch_writable(bool(waiting))

    def _watch_writable(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._sock.fileno())
        self._writing = wanted

    def _readable(self) -> None:
        try:
            count = self._parser.read(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        except UnreceivableError as error:
            count, self.fault = 0, str(error)
        except Exception:
            # What was received can't be told from what was not: this pipe is of no more use.
            log.exception("a frame from a child could not be handled")
            count = 0
        if count == 0 and not self.closed:
            self._finish()
            self._on_end()

    def _finish(self) -> None:
        if self.closed:
            return
        if not self._loop.is_closed():
            self._watch_writable(False)
            self._loop.remove_reader(self._sock.fileno())
        self.closed = True
        self._drop_waiting()
        self._parser.close()
        self._sock.close()

    def _drop_waiting(self) -> None:
        for _, fd in self._waiting:
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._waiting.clear()


class BlockingPipe:
    """The blocking end, in a child: ``recv()`` the next frame, ``send(chunks)``."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._ready: list[tuple[Buffer, bool]] = []
        self._parser = _Parser(lambda data, ahead: self._ready.append((data, ahead)))
        self._next = 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def recv(self) -> tuple[Buffer, bool] | None:
        """The next frame and whether it was sent ahead; None when the other end is closed."""
        while self._next >= len(self._ready):
            self._ready.clear()
            self._next = 0
            if not self._fill():
                return None
        frame = self._ready[self._next]
        self._ready[self._next] = (b"", False)  # a large frame must not outlive its call here
        self._next += 1
        return frame

    def readable(self, seconds: float = 0.0) -> bool:
        """Would ``recv`` find something, now or in so many seconds, without waiting for the other end?"""
        return self._next < len(self._ready) or bool(select.select([self.sock], [], [], seconds)[0])

    def _fill(self) -> bool:
        # A read that waits is woken whenever the other end has taken what we sent; a poll for input is not.
        self._poll.poll()
        try:
            return self._parser.read(self.sock) > 0
        except ConnectionResetError:
            return False

    def send(self, parts: Sequence[Buffer]) -> None:
        """Write one frame, given as its chunks; raises OSError when nobody reads any more."""
        length = sum(map(size, parts))
        if length <= LARGE:
            self.sock.sendall(b"".join([prefix(length), *parts]))
        elif (fd := _shared(parts)) is not None:
            self._send_shared(length, fd)
        else:
            self.sock.sendall(prefix(length))
            for part in parts:
                self.sock.sendall(part)

    def _send_shared(self, length: int, fd: int) -> None:
        try:
            socket.send_fds(self.sock, [prefix(length, SHARED)], [fd])
        finally:
            os.close(fd)
