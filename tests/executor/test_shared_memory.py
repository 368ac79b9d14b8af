"""Large buffers to and from children: writable, private to who got them, freed with their last view."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genro_nats import ProcessExecutor, WorkerLostError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="memfd"),
]

SIZE = 500_000  # items of eight bytes


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def others() -> set[str]:
    """Processes that are there already: workers of other tests, which keep functions, say."""
    return set(children())


@pytest.fixture
async def pool(others: set[str]) -> AsyncIterator[ProcessExecutor]:
    async with ProcessExecutor("shared", max_workers=1, spares=0, threads=1) as pool:
        yield pool


def memory_of(pid: int | str) -> int:
    """Anonymous files of ours that a process holds or maps."""
    found = 0
    with contextlib.suppress(OSError):
        found += Path(f"/proc/{pid}/maps").read_text().count("memfd:genro-nats")
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += "memfd:genro-nats" in str(fd.readlink())
    return found


def children() -> list[str]:
    """This process's family."""
    found, asked = [], [str(os.getpid())]
    while asked:
        pid = asked.pop()
        with contextlib.suppress(OSError):
            below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += below
            asked += below
    return found


def all_memory(others: set[str]) -> int:
    gc.collect()
    return sum(map(memory_of, ["self", *(set(children()) - others)]))


async def freed(others: set[str], limit: float = 10.0) -> None:
    import asyncio

    until = time.monotonic() + limit
    while all_memory(others):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


def echo(value: Any) -> Any:
    return value


def spoil(array: Any) -> float:
    """Write over the argument, and say what was there."""
    before = float(array.sum())
    array[:] = -1.0
    return before


_KEPT: list[Any] = []


def keep(array: Any) -> Any:
    """Keep what is given back, too."""
    _KEPT.append(array)
    return array


def kept() -> float:
    return float(_KEPT.pop().sum())


def die(array: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spoil_in_a_fork(array: Any) -> float:
    """What a program that forks sees of its own memory."""
    pid = os.fork()
    if pid == 0:
        array[:] = -1.0
        os._exit(0)
    os.waitpid(pid, 0)
    return float(array.sum())


def items(array: Any, count: int) -> Iterator[Any]:
    for _ in range(count):
        yield array


async def test_what_arrives_is_writable_and_private(pool: ProcessExecutor) -> None:
    data = np.ones(SIZE)
    assert await pool.submit(spoil, data) == SIZE
    assert data.sum() == SIZE
    one, other = await pool.submit(echo, data), await pool.submit(keep, data)
    one[:] = 2.0
    other[:] = 3.0
    assert (data.sum(), one.sum(), other.sum()) == (SIZE, 2 * SIZE, 3 * SIZE)
    assert await pool.submit(kept) == SIZE  # what the child kept is not what was written here


async def test_it_is_private_to_a_program_that_forks(pool: ProcessExecutor) -> None:
    assert await pool.submit(spoil_in_a_fork, np.ones(SIZE)) == SIZE


async def test_it_is_freed_with_its_last_view(pool: ProcessExecutor, others: set[str]) -> None:
    found = await pool.submit(echo, np.ones(SIZE))
    view = found[10:20]
    del found
    assert memory_of("self") > 0
    assert view.sum() == 10
    del view
    await freed(others)


async def test_it_is_freed_when_the_child_dies(pool: ProcessExecutor, others: set[str]) -> None:
    data = np.ones(SIZE)
    for _ in range(3):
        with pytest.raises(WorkerLostError):
            await pool.submit(die, data)
    await freed(others)


async def test_results_of_a_child_that_died_live_on(pool: ProcessExecutor, others: set[str]) -> None:
    found = await pool.submit(keep, np.ones(SIZE))
    with pytest.raises(WorkerLostError):
        await pool.submit(die, 1)
    found += 1.0
    assert found.sum() == 2 * SIZE
    del found
    await freed(others)


async def test_items_that_nobody_takes_are_freed(pool: ProcessExecutor, others: set[str]) -> None:
    async for item in pool(items).stream(np.ones(SIZE), 20):
        assert item.sum() == SIZE
        break
    del item
    await freed(others)
