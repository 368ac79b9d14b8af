"""Children are recycled without a gap, and children that can't be started end the worker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from genro_nats import ProcessExecutor
from tests.faults import jobs
from tests.faults.conftest import Notes, roster, until
from tests.worker_life.conftest import Site

pytestmark = pytest.mark.anyio


async def fewest_while(pool: ProcessExecutor, lanes: int, calls: int, work: Any) -> int:
    """The least number of children that could take calls at any moment of that work."""

    async def lane() -> None:
        for _ in range(calls):
            await asyncio.wait_for(work(), 20)

    running = asyncio.gather(*(lane() for _ in range(lanes)))
    fewest = lanes
    while not running.done():
        fewest = min(fewest, sum(not child.leaving for child in roster(pool).active))
        await asyncio.sleep(0)
    await running
    return fewest


async def test_recycling_by_count_keeps_all_places_filled(notes: Notes) -> None:
    # Both come to their end at the same moment, and there is one spare.
    async with ProcessExecutor("p", max_workers=2, spares=1, max_tasks_per_child=5) as pool:
        await pool.submit(jobs.pid)
        await until(lambda: len(roster(pool).spares) == 1)
        assert await fewest_while(pool, 2, 16, lambda: pool.submit(jobs.work, notes.path, "x", 0.1)) == 2
        assert roster(pool).lost == 0


async def test_recycling_by_memory_waits_for_a_successor(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=2, spares=0, max_memory_per_child=1_048_576) as pool:
        first = await pool.submit(jobs.pid)
        assert await fewest_while(pool, 2, 10, lambda: pool.submit(jobs.work, notes.path, "x", 0.06)) == 2
        await until(lambda: first not in {child.pid for child in roster(pool).active})


async def test_code_that_is_missing_is_tried_again_then_the_worker_leaves(site: Site) -> None:
    worker = site.worker("--import", "not_there_yet", ready=False)
    assert await asyncio.to_thread(worker.ended) == 1
    assert worker.log.count("attempt") == 3
    assert "ModuleNotFoundError: No module named 'not_there_yet'" in worker.log
    assert "Traceback" in worker.log


async def test_code_that_comes_late_is_found(site: Site) -> None:
    worker = site.worker("--processes", "1", "--import", "life_code", ready=False)
    worker.logged("attempt 1")
    site.write("VALUE = 1\n")
    worker.logged("worker.ready")


async def test_a_pool_whose_last_child_is_gone_moves_its_calls_and_leaves(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    site.write(
        f"import pathlib\ndef init():\n    if pathlib.Path({str(broken)!r}).exists():\n"
        "        raise RuntimeError('the database is away')\n"
    )
    worker = site.worker("--processes", "1", "--spares", "0", "--init", "life_code:init")
    pool = site.pool()
    assert await asyncio.wait_for(pool.submit(jobs.pid), 20)
    broken.touch()
    with pytest.raises(Exception, match="code 3"):
        await asyncio.wait_for(pool.submit(jobs.exit_now, 3), 20)
    # It is tried for a while; a call that waits there is given to who can run it.
    waiting = asyncio.create_task(pool.submit(jobs.pid))
    site.worker("--processes", "1")
    assert await asyncio.wait_for(waiting, 30)
    assert await asyncio.to_thread(worker.ended) == 1
    assert "the worker can't go on" in worker.log
    assert "RuntimeError: the database is away" in worker.log
