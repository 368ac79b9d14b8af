"""Sample functions for a worker, written against the public API only.

They run wherever the pools are configured to be: in processes of this machine, or,
with ``kind = "nats"`` in ``executors.toml``, on workers started with
``genro-nats worker --config workers/worker.toml``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from genro_nats import ExecutorRegistry, current_call

executors = ExecutorRegistry()
heavy = executors.executor(name="heavy", subject="tasks.heavy")
io = executors.executor(name="io", subject="tasks.io", threads=16)


def load() -> None:
    """Run once in each child before its first call: load a model, open a database."""


@heavy(timeout=60)
def primes(limit: int) -> list[int]:
    """All primes below ``limit``; tells how far it is, and stops when its caller has gone."""
    sieve = bytearray([0, 0]) + bytearray([1]) * (limit - 2)
    call = current_call()
    for number in range(2, int(limit**0.5) + 1):
        if call.cancelled:
            break
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
        call.progress(number / limit**0.5, f"struck out the multiples of {number}")
    return [number for number in range(limit) if sieve[number]]


@heavy
def chunks(text: str, size: int = 1000) -> Iterator[str]:
    """A generator function: ``async for piece in chunks.stream(text)``."""
    for at in range(0, len(text), size):
        yield text[at : at + size]


@io
def fingerprint(path: str) -> str:
    """The SHA-256 of a file that the worker can read, in hex."""
    with open(path, "rb") as file:  # noqa: PTH123 - plain Python, as a sample should be
        return hashlib.file_digest(file, "sha256").hexdigest()
