"""Functions that run in children and workers: they note each execution, and break things."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from pickle import PickleBuffer
from typing import Any, NoReturn

from genro_nats import current_call


def note(path: str, line: object) -> None:
    """Add one line, whole, whatever happens a moment later."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def work(path: str, key: object, seconds: float = 0.0) -> Any:
    """Note the execution, take some time, and give the key back."""
    note(path, key)
    if seconds:
        time.sleep(seconds)
    return key


async def async_work(path: str, key: object, seconds: float = 0.0) -> Any:
    note(path, key)
    await asyncio.sleep(seconds)
    return key


def fail_after(path: str, release: str) -> NoReturn:
    """Note the execution, run until a file exists, and raise."""
    note(path, "began")
    wait_for(release)
    raise ValueError("as it was told")


def wait_for(path: str, limit: float = 10.0) -> None:
    """Run until a file exists."""
    until = time.monotonic() + limit
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.002)


def hold(path: str, release: str) -> None:
    """Note who it is, and run until a file exists."""
    note(path, f"held by {os.getpid()} {time.monotonic()}")
    wait_for(release, 60)


def note_and_hold(path: str, release: str, data: bytes) -> int:
    """Note the execution, run until a file exists, and give the size."""
    note(path, "held")
    wait_for(release, 60)
    return len(data)


async def async_hold(path: str, release: str) -> None:
    """``hold``, and its child's event loop with it."""
    hold(path, release)


def cooperate(path: str) -> str:
    """Run until cancelled."""
    note(path, "began")
    call = current_call()
    while not call.cancelled:
        time.sleep(0.002)
    note(path, "cancelled")
    return "cancelled"


def spin(path: str) -> NoReturn:
    """A loop that never ends."""
    note(path, os.getpid())
    while True:
        pass


async def async_stubborn(path: str, release: str) -> None:
    """Does not let itself be cancelled."""
    note(path, "began")
    while not Path(release).exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


def nap(seconds: float) -> None:
    """So short that it is sent ahead, unless told otherwise."""
    if seconds:
        time.sleep(seconds)


def exit_now(code: int) -> NoReturn:
    os._exit(code)


def sys_exit(code: int) -> NoReturn:
    sys.exit(code)


async def async_sys_exit(code: int) -> None:
    await asyncio.sleep(0)
    sys.exit(code)


def segfault() -> None:
    ctypes.string_at(0)


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


def overflow_c_stack() -> None:
    """Recursion in C that Python's limit does not stop."""
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    sys.setrecursionlimit(1 << 30)

    def again(a: int, b: int) -> int:
        pair = (ctypes.c_int * 2)(1, 2)
        ctypes.CDLL(None).qsort(pair, 2, 4, called)
        return 0

    called = compare(again)
    again(1, 2)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def close_descriptors() -> str:
    os.closerange(3, 256)
    return "closed"


def close_and_stay(path: str) -> NoReturn:
    note(path, os.getpid())
    os.closerange(3, 256)
    while True:
        time.sleep(0.01)


def write_to_stdout(text: str) -> int:
    os.write(1, text.encode())
    print(text, flush=True)
    return len(text)


def write_everywhere() -> None:
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b"not a frame\n")


def eat(megabytes: int) -> int:
    _KEPT.append(bytearray(os.urandom(1)) * (megabytes << 20))
    return os.getpid()


_KEPT: list[bytearray] = []


def pid() -> int:
    return os.getpid()


def template_pid() -> int:
    return os.getppid()


def fail_if(path: str) -> None:
    """An initializer that works until a file exists."""
    if Path(path).exists():
        raise RuntimeError("the file is there")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not me")


class ExitsInPickle:
    def __reduce__(self) -> Any:
        raise SystemExit(3)


class Picky(Exception):
    def __init__(self, a: int, b: int) -> None:
        if b != 2:
            raise ValueError("b must be 2")
        super().__init__(a, b)


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def give_unpicklable(kind: str) -> Any:
    return {"reduce": Unpicklable, "exit": ExitsInPickle, "lock": threading.Lock}[kind]()


def raise_picky() -> NoReturn:
    raise Picky(1, 2)


def raise_no_text() -> NoReturn:
    raise NoText(threading.Lock())


def give_bytes(count: int) -> bytes:
    return bytes(count)


def take_bytes(data: bytes) -> int:
    return len(data)


def show_and_return(size: int) -> int:
    """Progress of that many bytes, and the outcome right behind it."""
    current_call().progress(0.5, "shown", bytes(size))
    return 3


def show_and_return_large(size: int) -> bytes:
    return bytes(size * (show_and_return(size) - 2))


def show_and_fail(size: int) -> None:
    show_and_return(size)
    raise LookupError("after progress")


def fail_with(count: int) -> None:
    raise LookupError(bytes(count))


def refuse(value: Any) -> None:
    raise LookupError("no")


def remaining() -> float:
    return current_call().remaining


def numbers(path: str, count: int) -> Iterator[int]:
    try:
        yield from range(count)
    finally:
        note(path, "closed")


async def async_numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def note_bytes(path: str, data: bytes) -> int:
    """Note the call, and how much came."""
    note(path, len(data))
    return len(data)


def echo_note(path: str, data: Any) -> Any:
    note(path, "echo")
    return data


def mixed_items(sizes: list[int]) -> Iterator[bytes]:
    """Items of these sizes, each filled with its number."""
    for number, size in enumerate(sizes):
        yield bytes([number]) * size


def remaining_of(data: bytes) -> float:
    return remaining()


def late_bytes(path: str, seconds: float, count: int) -> bytes:
    """Note the call, then take a while for this many bytes."""
    note(path, "late")
    time.sleep(seconds)
    note(path, "made")
    return bytes(count)


def many_buffers(count: int) -> list[PickleBuffer]:
    """A value of that many buffers beside its pickle (of one memory: they are the same bytes)."""
    return [PickleBuffer(_BULK) for _ in range(count)]


_BULK = bytearray(64 * 1024)
