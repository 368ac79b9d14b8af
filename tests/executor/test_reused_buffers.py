"""What a function does with its memory after it gave it out, and a caller after its call, changes nothing sent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from genro_nats import AsyncProcessExecutor, ProcessExecutor, current_call
from genro_nats.transport import pipe
from genro_nats.transport.pipe import BlockingPipe, Pipe

pytestmark = pytest.mark.anyio

SIZES = [100, 100_000, 1_000_000]  # bytes: in the pickle, in the stream, in shared memory
COUNT = 12


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def overwritten(size: int) -> Iterator[dict[str, bytearray]]:
    memory = bytearray(size)
    for number in range(COUNT):
        memory[:] = bytes([number]) * size
        yield {"data": memory}


async def overwritten_async(size: int) -> AsyncIterator[dict[str, bytearray]]:
    for item in overwritten(size):
        yield item


def overwritten_array(size: int) -> Iterator[dict[str, Any]]:
    memory = np.zeros(size, "u1")
    for number in range(COUNT):
        memory[:] = number
        yield {"data": memory}


def growing(size: int) -> Iterator[bytearray]:
    memory = bytearray(size)
    for _ in range(COUNT):
        yield memory
        memory.extend(b"more")


def shown(size: int) -> int:
    """Progress of one memory that is overwritten and grows, each more than the rate limit apart."""
    memory = bytearray(size)
    for number in range(4):
        memory[:] = bytes([number]) * size
        current_call().progress(number / 4, data=memory)
        memory.extend(b"more")
        time.sleep(0.15)
    return len(memory)


def fail(value: Any) -> None:
    raise LookupError("no")


POOLS: list[Callable[[], ProcessExecutor | AsyncProcessExecutor]] = [
    lambda: ProcessExecutor("reused", max_workers=1, spares=0),
    lambda: ProcessExecutor("reused", max_workers=1, spares=0, threads=2),
    lambda: AsyncProcessExecutor("reused", max_workers=1, spares=0),
]


@pytest.fixture(params=POOLS, ids=["sync", "threads", "async"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[ProcessExecutor | AsyncProcessExecutor]:
    async with request.param() as pool:
        yield pool


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [overwritten, overwritten_async, overwritten_array])
async def test_items_are_as_they_were_when_they_were_yielded(pool: Any, function: Any, size: int) -> None:
    found = [bytes(item["data"]) async for item in pool.stream(function, size)]
    assert found == [bytes([number]) * size for number in range(COUNT)]


@pytest.mark.parametrize("size", SIZES)
async def test_a_generator_may_resize_what_it_yielded(pool: Any, size: int) -> None:
    assert [len(item) async for item in pool.stream(growing, size)] == [size + 4 * n for n in range(COUNT)]


@pytest.mark.parametrize("size", SIZES)
async def test_a_function_may_resize_what_it_showed(pool: Any, size: int) -> None:
    seen: list[bytes] = []
    call = pool(shown).options(on_progress=lambda update: seen.append(bytes(update.data)))
    assert await call(size) == size + 4
    assert seen[0] == bytes(size)
    assert len(seen) > 2


@pytest.mark.parametrize("size", SIZES)
async def test_a_caller_may_resize_what_it_sent_once_its_call_has_failed(pool: Any, size: int) -> None:
    memory = bytearray(size)
    for value in (memory, {"data": [memory]}):
        try:
            await pool.submit(fail, value)
        except LookupError:
            memory.extend(b"in the clause, where the traceback lives")
    assert len(memory) > size + 40


async def test_what_waits_for_the_other_end_is_as_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no shared memory, and the socket does not take it all at once."""
    monkeypatch.setattr(pipe, "_can_share", False)
    ours, theirs = socket.socketpair()
    sending = Pipe(ours, lambda data, ahead: None, lambda: None)
    memory = bytearray(b"x" * 10_000_000)
    sending.send([b"head", memory])
    memory[:] = bytes(len(memory))
    got = await asyncio.wait_for(asyncio.to_thread(BlockingPipe(theirs).recv), 20)
    assert got is not None
    assert bytes(got[0]) == b"head" + b"x" * 10_000_000
    sending.close()
    theirs.close()
