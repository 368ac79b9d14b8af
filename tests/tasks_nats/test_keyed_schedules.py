"""A schedule's run and the key that it has: no two tasks with one key at the same time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from genro_nats import NatsExecutor, TaskState, TaskStatus
from genro_nats.testing import WorkerFactory, WorkerProcess
from genro_nats.testing.suite import samples


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def runs(pool: NatsExecutor, name: str, state: TaskState) -> list[TaskStatus]:
    """The runs of a schedule that are in a state; waits until there is one."""
    async with asyncio.timeout(10):
        while True:
            found = [status async for status in pool.tasks(state=state) if status.id.startswith(f"{name}.")]
            if found:
                return found
            await asyncio.sleep(0.05)


@pytest.mark.anyio
async def test_a_run_gives_way_to_an_older_task(nats_worker: WorkerFactory, tmp_path: Path) -> None:
    nats_worker("keyed", max_workers=2)
    async with NatsExecutor("keyed", **{**nats_worker.shared, "subject": "keyed"}) as pool:
        held = await pool(samples.hold_async).options(key="k").enqueue(str(tmp_path))
        name = f"often-{time.time_ns()}"
        noted = pool(samples.note).options(key="k")
        schedule = await noted.schedule(name, every=1, args=(str(tmp_path), "run"))
        given_way = await runs(pool, name, TaskState.CANCELLED)
        assert given_way[0].attempts == 0
        assert "key" in given_way[0].error
        assert not (tmp_path / "order").exists()
        (tmp_path / "release").touch()
        assert await held.result(10) == "call"
        done = await runs(pool, name, TaskState.COMPLETED)
        assert done[0].attempts == 1
        assert await schedule.remove()


@pytest.mark.anyio
async def test_a_run_that_waits_has_the_key(nats_worker: WorkerFactory, tmp_path: Path) -> None:
    shared = {**nats_worker.shared, "subject": "keyed.later"}
    async with NatsExecutor("keyed", **shared) as pool:
        noted = pool(samples.note).options(key="k")
        name = f"once-{time.time_ns()}"
        schedule = await noted.schedule(name, every=1, args=(str(tmp_path), "run"))
        async with asyncio.timeout(10):
            while not (waiting := [status async for status in pool.tasks(state="pending")]):
                await asyncio.sleep(0.05)
        assert await schedule.remove()
        twin = await noted.enqueue(str(tmp_path), "twin")
        assert twin.id.startswith(f"{name}.")
        assert waiting[0].id.startswith(f"{name}.")
        nats_worker("keyed.later", max_workers=1)
        assert await twin.result(10) == "run"


@pytest.mark.anyio
async def test_a_run_that_waits_is_cancelled_though_every_worker_is_busy(
    nats_worker: WorkerFactory, tmp_path: Path
) -> None:
    nats_worker("busy", max_workers=1)
    async with NatsExecutor("busy", **{**nats_worker.shared, "subject": "busy"}) as pool:
        held = await pool(samples.hold_async).enqueue(str(tmp_path))
        name = f"waits-{time.time_ns()}"
        schedule = await pool(samples.note).schedule(name, every=1, args=(str(tmp_path), "run"))
        async with asyncio.timeout(10):
            while len(ids := [one.id async for one in pool.tasks(state="pending")]) < 2:
                await asyncio.sleep(0.05)
        assert await schedule.remove()
        assert await pool.task(ids[0]).cancel(3)
        assert (await pool.task(ids[0]).status()).state is TaskState.CANCELLED
        assert (await pool.task(ids[1]).status()).state is TaskState.PENDING
        (tmp_path / "release").touch()
        assert await held.result(10) == "call"
        assert await pool.task(ids[1]).result(10) == "run"
        assert (tmp_path / "order").read_text().count("run") >= 1


@pytest.mark.anyio
@pytest.mark.parametrize("word", ["schedule", "later"])
async def test_a_prefix_may_hold_any_word(nats_worker: WorkerFactory, word: str) -> None:
    shared = {**nats_worker.shared, "subject": "words", "prefix": f"app.{word}.{time.time_ns()}"}
    with WorkerProcess({**shared, "max_workers": 1, "spares": 1}):
        async with NatsExecutor("words", **shared) as pool:
            delayed = await pool(samples.add).options(delay=0.2).enqueue(1)
            assert await delayed.result(10) == 2
            at_once = await pool(samples.add).options(delay=60).enqueue(1)
            assert await at_once.cancel()
    async with NatsExecutor("words", **shared) as pool:
        waits = await pool(samples.add).enqueue(1)
        assert (await waits.status()).state is TaskState.PENDING
