"""Functions that the conformance suite runs in pools: every worker can import them."""

# ruff: noqa: ASYNC240 - a mark is one system call
from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import anyio

from genro_nats.errors import Retry
from genro_nats.message import current_call

LIMIT = 15.0  # seconds after which a held call ends by itself
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


# -- values -----------------------------------------------------------------


def add(a: int, b: int = 1) -> int:
    return a + b


async def add_async(a: int, b: int = 1) -> int:
    await pause()
    return a + b


def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def echo(value: Any) -> Any:
    return value


def negative(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value


class Scale:
    """An object whose bound methods travel."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, value: int) -> int:
        return self.factor * value

    async def times_async(self, value: int) -> int:
        return self.factor * value

    def __call__(self, value: int) -> int:
        return self.factor * value


def make_lock() -> Any:
    return threading.Lock()


def mark_first(buffer: Any) -> Any:
    """Write into what came, and give it back."""
    buffer[0] = 7
    return buffer


def add_ten(a: int) -> int:
    return a + 10


# -- errors -----------------------------------------------------------------


class Fussy(Exception):
    """Its ``__init__`` can't be run with its own ``args``."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Unportable(Exception):
    """Holds what can't be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text, threading.Lock())


def fail_with_cause() -> None:
    try:
        fail_deep()
    except KeyError as error:
        wrapped = ValueError("outer", 42)
        wrapped.add_note("a note from afar")
        raise wrapped from error


def fail_deep() -> None:
    raise KeyError("inner")


async def fail_async() -> None:
    await pause()
    raise LookupError("async")


def fail_fussy() -> None:
    raise Fussy(code=7)


def fail_unportable() -> None:
    raise Unportable("has a lock")


def leave(code: int) -> None:
    sys.exit(code)


def stop(value: int) -> None:
    raise StopIteration(value)


async def stop_async(value: int) -> None:
    raise StopIteration(value)


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


# -- generators -------------------------------------------------------------


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


async def numbers_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await pause()
        yield number


def endless(directory: str) -> Iterator[int]:
    """Counts for ever; each item adds a byte to the file ``produced``, the end makes ``closed``."""
    number = 0
    try:
        while True:
            append(directory, "produced")
            yield number
            number += 1
    finally:
        Path(directory, "closed").touch()


async def endless_async(directory: str) -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            append(directory, "produced")
            yield number
            number += 1
    finally:
        Path(directory, "closed").touch()


def broken_numbers(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("broken off")


async def broken_numbers_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
    raise ValueError("broken off")


def numbers_and_stop(count: int) -> Iterator[int]:
    yield from range(count)
    raise StopAsyncIteration("broken off")


def negative_stops(value: int) -> int:
    if value < 0:
        raise StopAsyncIteration(f"{value} is negative")
    return value


class _Exhausted:
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration


async def negative_is_exhausted(value: int) -> int:
    return value if value >= 0 else await anext(_Exhausted())


def report_and_yield() -> Iterator[int]:
    report()
    yield 1


def blocks(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number]) * 1_000_000


async def one_and_stuck(directory: str) -> AsyncIterator[int]:
    yield 1
    await hold_async(directory)


def append(directory: str, name: str) -> None:
    with Path(directory, name).open("ab") as file:
        file.write(b".")


# -- calls that last --------------------------------------------------------


async def pause(seconds: float = 0.002) -> None:
    """Sleep in whatever runs the present code."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await anyio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def hold(directory: str, name: str = "call") -> str:
    """Makes ``NAME.begun``, and returns the name once there is a file ``release``."""
    Path(directory, f"{name}.begun").touch()
    deadline = time.monotonic() + LIMIT
    while not Path(directory, "release").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} was never released")
        time.sleep(0.002)
    return name


async def hold_async(directory: str, name: str = "call") -> str:
    """As ``hold``; makes ``NAME.ended`` however it ends."""
    Path(directory, f"{name}.begun").touch()
    deadline = time.monotonic() + LIMIT
    try:
        while not Path(directory, "release").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} was never released")
            await pause()
    finally:
        Path(directory, f"{name}.ended").touch()
    return name


async def crowd(directory: str, name: str) -> int:
    """How many calls of this function run now; held as ``hold_async``."""
    own = Path(directory, f"{name}.running")
    own.touch()
    try:
        await hold_async(directory, name)
        return len(list(Path(directory).glob("*.running")))
    finally:
        own.unlink()


async def crowd_at(place: tuple[str, str]) -> int:
    """``crowd`` with one argument, for maps."""
    return await crowd(*place)


async def hold_others(place: tuple[int, str]) -> None:
    """Only the call of number 0 ends by itself."""
    number, directory = place
    await (hold_async(directory, str(number)) if number else pause())


# -- where and as what ------------------------------------------------------


def where() -> tuple[int, int]:
    """Process and thread."""
    return os.getpid(), threading.get_ident()


def initialise(directory: str, greeting: str = "") -> None:
    """Adds a byte to a file that names this process and thread."""
    append(directory, f"init-{os.getpid()}-{threading.get_ident()}")
    os.environ["CONFORMANCE_GREETING"] = greeting


def initialised(directory: str) -> tuple[int, list[int], str]:
    """This process, how often each of its threads was initialised, and the greeting."""
    files = Path(directory).glob(f"init-{os.getpid()}-*")
    counts = [file.stat().st_size for file in files]
    return os.getpid(), counts, os.environ.get("CONFORMANCE_GREETING", "")


def read_tenant() -> str:
    return tenant.get()


async def read_tenant_async() -> str:
    await pause()
    return tenant.get()


def look() -> tuple[str, str, str, float]:
    """The running call's id, trace id and function, and the seconds it has left."""
    call = current_call()
    return call.id, call.trace_id, call.function, call.remaining


def report() -> str:
    """Two steps of progress."""
    call = current_call()
    call.progress(0.5, "half", {"page": 1})
    call.progress(1.0, "done")
    return call.id


def watch_cancelled(directory: str) -> None:
    """Runs until it sees that nobody waits for it any more; then makes ``told``."""
    Path(directory, "call.begun").touch()
    deadline = time.monotonic() + LIMIT
    while not current_call().cancelled and time.monotonic() < deadline:
        time.sleep(0.002)
    if current_call().cancelled:
        Path(directory, "told").touch()


# -- tasks ------------------------------------------------------------------


def note(directory: str, name: str) -> str:
    """Adds a line to the file ``order``."""
    with Path(directory, "order").open("a") as file:
        file.write(f"{name}\n")
    return name


def fail_before(attempt: int) -> tuple[int, str]:
    """Raises ValueError in every attempt before that one."""
    call = current_call()
    if call.attempt < attempt:
        raise ValueError(f"attempt {call.attempt}")
    return call.attempt, call.id


def go_on(steps: int) -> list[int]:
    """One step an attempt; each goes on from where the last one left."""
    call = current_call()
    done = [*(call.checkpointed or []), call.attempt]
    call.checkpoint(done)
    if len(done) < steps:
        raise ValueError(f"{len(done)} of {steps}")
    return done


def later(delay: float) -> int:
    """Asks once to be tried again after that time."""
    call = current_call()
    if call.attempt == 1:
        raise Retry(delay=delay)
    return call.attempt


def die(directory: str, times: int) -> int:
    """Takes its process with it, so many times; then says which attempt this is."""
    append(directory, "deaths")
    if Path(directory, "deaths").stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_call().attempt


def report_often(count: int) -> int:
    """Much progress in little time; the last one is told in any case."""
    for number in range(count):
        current_call().progress((number + 1) / (count + 1), f"step {number + 1}")
    return count


async def report_and_hold(directory: str) -> str:
    current_call().progress(0.5, "half", {"page": 1})
    return await hold_async(directory)
