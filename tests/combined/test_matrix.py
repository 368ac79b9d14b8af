"""What was built apart, together: roles, keys, codecs, compression, large payloads, calls, streams and tasks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor, TaskState
from tests.combined import jobs
from tests.combined.conftest import Site

pytestmark = pytest.mark.anyio
LARGE = 1_500_000  # over inline_limit
WAYS = [(subject, compression) for subject in ("any", "data") for compression in (None, "zstd", "lz4")]


def texts(size: int) -> bytes:
    """It gets smaller, but not so much that it is no large payload any more."""
    return b"".join(os.urandom(600) + b"-" * 400 for _ in range(size // 1000))


@pytest.mark.parametrize(("subject", "compression"), WAYS)
async def test_calls_streams_and_tasks(
    site: Site, subject: str, compression: str | None, tmp_path: Path
) -> None:
    async with site.pool("caller", subject, compression=compression) as pool:
        large = texts(2 * LARGE)
        values: list[Any] = ["small", {"a": (1, 2), "b": b"x" * 40_000}, large, bytes(LARGE)]
        assert [await pool.submit(jobs.echo, value) for value in values] == values
        notes = tmp_path / "nested"
        assert await pool.submit(jobs.nested, large, str(notes), subject) == [large, large]
        outer, inner, other = notes.read_text().split()
        assert outer == inner
        assert (other == outer) == (subject == "any")  # a pool is its subject, whatever its name
        stream = pool(jobs.pieces).stream(3, LARGE)
        assert [item async for item in stream] == [letter * LARGE for letter in (b"A", b"B", b"C")]
        with pytest.raises(LookupError) as failed:
            await pool.submit(jobs.fails, large)
        assert failed.value.args == ("never", len(large))

        resumed = pool(jobs.resumed).options(retries=1, backoff=0.01)
        task = await resumed.enqueue(large, LARGE)
        assert await task.result(timeout=20) == (large, [b"c" * LARGE, (1, 2)])
        later = await pool(jobs.echo).options(delay=0.1, priority="high", key="k").enqueue(large)
        assert await later.result(timeout=20) == large
        bad = await pool(jobs.mended).enqueue(large, str(tmp_path / "mended"))
        with pytest.raises(LookupError):
            await bad.result(timeout=20)
        (tmp_path / "mended").touch()
        async with site.pool("manager", subject, compression=compression) as manager:
            again = await manager.dead.replay(bad.id)
            assert await _settled(manager, again.id) is TaskState.COMPLETED


@pytest.mark.parametrize("subject", ["any", "data"])
async def test_schedules(site: Site, subject: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with site.pool("caller", subject, compression="zstd") as pool:
        await pool(jobs.echo).schedule("often", every=1.0, args=(texts(2 * LARGE), str(runs)))
        await _until(runs.exists)
        assert await pool.unschedule("often")


async def _settled(pool: NatsExecutor, id: str) -> TaskState:
    status = await pool.task(id).status()
    deadline = time.monotonic() + 20
    while not status.settled:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
        status = await pool.task(id).status()
    return status.state


async def _until(condition: Callable[[], object], limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
