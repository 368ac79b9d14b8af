"""Ids of somebody's own that are cancelled and used again: a request is for the task that had the id then."""

from __future__ import annotations

from pathlib import Path

import pytest

from genro_nats.errors import TaskCancelledError
from tests.faults import task_jobs
from tests.faults.conftest import Notes
from tests.faults.durable import Ledger, TaskFleet, reach

pytestmark = pytest.mark.anyio


async def forgotten(ledger: Ledger, id: str) -> None:
    async def gone() -> bool:
        return await ledger.store.load(id) is None

    await reach(gone)


@pytest.mark.parametrize("delay", [60, None])
async def test_a_task_with_the_id_of_one_that_was_cancelled_runs(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path, delay: float | None
) -> None:
    """Every worker heard that the first was to be cancelled, and any may get the second at once."""
    for _ in range(2):
        await shared_tasks.worker()
    pool, other = shared_tasks.caller(), shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        for turn in range(8):
            begun = len(notes.lines())
            first = (
                await pool(task_jobs.show_pid)
                .options(id="order", delay=delay, keep_result=False)
                .enqueue(notes.path, str(tmp_path / "never"))
            )
            if delay is None:
                await notes.wait(begun + 1)
            assert await first.cancel(10)
            with pytest.raises(TaskCancelledError):
                await first.result(timeout=10)
            await forgotten(ledger, "order")
            second = (
                await other(task_jobs.work).options(id="order", keep_result=False).enqueue(notes.path, turn)
            )
            assert await second.result(timeout=10) == turn
            await forgotten(ledger, "order")


async def test_the_second_can_be_cancelled_as_well(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path
) -> None:
    for _ in range(2):
        await shared_tasks.worker()
    pool = shared_tasks.caller()
    never = str(tmp_path / "never")
    once = pool(task_jobs.show_pid).options(id="order", keep_result=False)
    for turn in range(6):  # before it runs, or while it does: as it happens
        begun = len(notes.lines())
        task = await once.enqueue(notes.path, never)
        if turn % 2:
            await notes.wait(begun + 1)
        assert await task.cancel(10)
        with pytest.raises(TaskCancelledError):
            await task.result(timeout=10)


async def test_a_request_that_was_left_over(shared_tasks: TaskFleet, notes: Notes) -> None:
    """It is stored for a day, if its task ended in another way. A worker that starts then looks at what it means."""
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        for id in ("later", "same", "any"):
            await pool(task_jobs.work).options(id=id).enqueue(notes.path, id)
        created = {id: (await pool.task(id).status()).created_at for id in ("later", "same")}
        await ledger.store.note("ask", "cancel", "later", b"%.6f" % (created["later"] - 0.1), ttl=60)
        await ledger.store.note("ask", "cancel", "same", b"%.6f" % created["same"], ttl=60)
        await ledger.store.note("ask", "cancel", "any", ttl=60)  # as earlier releases asked
        await shared_tasks.worker()
        assert await pool.task("later").result(timeout=10) == "later"
        for id in ("same", "any"):
            with pytest.raises(TaskCancelledError):
                await pool.task(id).result(timeout=10)
        assert notes.lines() == ["later"]
