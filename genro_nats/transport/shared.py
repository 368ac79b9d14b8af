"""Large frames in shared memory: an anonymous file whose descriptor travels over the socket.

The receiver maps it privately, so what it gets is writable and its own, and
the memory is freed with the last view of it, also when either side dies.
Linux only (memfd); elsewhere large frames go through the socket.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

from genro_nats.codec.frame import Buffer, size

__all__ = ["StoredFrame", "available", "beside", "mapped", "stored"]

_LONG = 8 << 20  # bytes from which on freeing takes a millisecond
_IOV_MAX = 1024  # pieces in one writev at most (POSIX allows no fewer than 16; Linux takes 1024)


def available() -> bool:
    """Can frames be put into shared memory here?"""
    return hasattr(os, "memfd_create")


def stored(parts: Sequence[Buffer]) -> int:
    """A descriptor of memory that holds the parts end to end; the caller closes it. Raises OSError."""
    fd = os.memfd_create("genro-nats", os.MFD_CLOEXEC)
    try:
        pieces = [memoryview(part).cast("B") for part in parts if size(part)]
        while pieces:
            pieces = _after(pieces, os.writev(fd, pieces[:_IOV_MAX]))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _after(pieces: list[memoryview], written: int) -> list[memoryview]:
    """What is left once so many bytes were written."""
    for number, piece in enumerate(pieces):
        if written < len(piece):
            return [piece[written:], *pieces[number + 1 :]]
        written -= len(piece)
    return []


def beside(free: Callable[[], object], length: int) -> None:
    """Free memory of this length; much of it in a thread: the kernel takes 10 ms for 100 MiB, and calls would wait."""
    if length >= _LONG:
        with contextlib.suppress(RuntimeError):  # no new threads when the interpreter ends
            threading.Thread(target=free, daemon=True).start()
            return
    free()


def mapped(fd: int, length: int) -> memoryview:
    """The memory behind a descriptor, private and writable; the descriptor is closed."""
    try:
        if sys.version_info >= (3, 13):  # before, each mapping keeps a descriptor open
            return memoryview(mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, trackfd=False))
        return memoryview(mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE))
    finally:
        os.close(fd)


class StoredFrame:
    """A frame that is being written, or was, to shared memory; freed with this object. Raises OSError."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("genro-nats", os.MFD_CLOEXEC)
        self.length = 0

    def __del__(self) -> None:
        if (fd := getattr(self, "fd", -1)) >= 0:
            beside(partial(os.close, fd), self.length)

    def write(self, piece: memoryview) -> None:
        """Append bytes."""
        while piece:
            written = os.write(self.fd, piece)
            self.length += written
            piece = piece[written:]

    def put(self, at: int, data: bytes) -> None:
        """Write over bytes that are there."""
        os.pwrite(self.fd, data, at)

    def view(self) -> memoryview:
        """The bytes, not copied."""
        return mapped(os.dup(self.fd), self.length)
