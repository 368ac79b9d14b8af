"""A module of workers whose functions do several things at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genro_nats import ExecutorRegistry, current_call

executors = ExecutorRegistry()
pool = executors.executor("nats", name="any", subject="any", prefix="sec")
data = executors.executor("nats", name="data", subject="data", prefix="sec")
across = executors.executor(
    "nats", name="across", subject="any", prefix="sec"
)  # GENRO_POOL_ACROSS says as whom


def echo(value: Any, path: str = "") -> Any:
    note(path, str(os.getpid()))
    return value


mine = {"any": pool(echo), "data": data(echo)}
theirs = across(echo)


@pool
def nested(value: Any, path: str, subject: str) -> Any:
    """Calls another function: of its pool, which runs in this child, and of another one, which doesn't."""
    note(path, str(os.getpid()))
    return [mine[subject].call(value, path), theirs.call(value, path)]


@pool
def pieces(count: int, size: int) -> Iterator[bytes]:
    """Each of another letter."""
    for number in range(count):
        current_call().progress((number + 1) / count, data={"at": (number,)})
        yield bytes([65 + number]) * size


@pool
def resumed(value: bytes, size: int) -> tuple[bytes, Any]:
    """Fails once, and leaves a large checkpoint and progress."""
    call = current_call()
    if call.attempt == 1:
        call.progress(0.5, data=bytes(size))
        call.checkpoint([b"c" * size, (1, 2)])
        raise ValueError("once")
    return value, call.checkpointed


@pool
def fails(value: bytes) -> None:
    raise LookupError("never", len(value))


@pool
def mended(value: bytes, path: str) -> int:
    """Fails for good as long as there is no such file."""
    if not Path(path).exists():
        raise LookupError("not mended")
    return len(value)


def note(path: str, line: str) -> None:
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")


def rest(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()
