"""Samples of what functions can do: progress, streams, checkpoints, retries. The public API only.

They run wherever the pools are configured to be: in processes of this machine, or,
with ``kind = "nats"`` in ``executors.toml``, on workers started with
``genro-nats worker --config workers/worker.toml``. ``longest_chain`` and
``wait_for_file`` are made to be enqueued as durable tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from genro_nats import ExecutorRegistry, Retry, current_call

executors = ExecutorRegistry()
heavy = executors.executor(name="heavy", subject="tasks.heavy")
io = executors.executor(name="io", subject="tasks.io", threads=16)


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


@heavy(name="samples.longest_chain")
def longest_chain(limit: int) -> tuple[int, int]:
    """The number below ``limit`` with the longest Collatz chain, and the length of that.

    Made for ``await longest_chain.enqueue(3_000_000)``: it tells how far it is, and when its
    child or worker dies, the next attempt goes on from the last checkpoint. The stable name keeps
    what is queued alive when the function moves.
    """
    call = current_call()
    begin, best, length = call.checkpointed or (1, 1, 1)
    for number in range(begin, limit):
        if number % 10_000 == 0:
            call.checkpoint((number, best, length))
            call.progress(number / limit, f"{number:,} of {limit:,}, longest so far: {length} from {best:,}")
        steps, value = 1, number
        while value != 1:
            value = 3 * value + 1 if value % 2 else value // 2
            steps += 1
        if steps > length:
            best, length = number, steps
    return best, length


@io
def wait_for_file(path: str) -> int:
    """The size of a file, once it is there: ``wait_for_file.options(retries=100).enqueue(path)``.

    Between two looks the task waits in the queue, not in a worker.
    """
    if not Path(path).exists():
        raise Retry(f"{path} is not there yet", delay=1)
    return Path(path).stat().st_size


@io
def fingerprint(path: str) -> str:
    """The SHA-256 of a file that the worker can read, in hex."""
    with open(path, "rb") as file:  # noqa: PTH123 - plain Python, as a sample should be
        return hashlib.file_digest(file, "sha256").hexdigest()
