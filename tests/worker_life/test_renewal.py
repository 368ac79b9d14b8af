"""SIGHUP: children with fresh code, one after another; and what happens when that code is broken."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from genro_nats import ProcessExecutor
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Notes, roster, until
from tests.worker_life import jobs as own_jobs
from tests.worker_life.conftest import Load, Site

pytestmark = pytest.mark.anyio

ONE = "def version():\n    return 1\n"
TWO = "def version():\n    return 'the second one'\n"


async def version(site: Site) -> object:
    return await asyncio.wait_for(site.pool().submit(own_jobs.version), 20)


async def test_sighup_brings_new_code_and_loses_nothing(site: Site, notes: Notes) -> None:
    site.write(ONE)
    worker = site.worker("--processes", "3", "--import", "life_code", "--import", "tests.faults.task_jobs")
    pool = site.pool()
    assert await version(site) == 1
    load = Load(pool, notes, lanes=2)  # a child is left for the tasks
    await load.more()
    tasks = [await pool(task_jobs.work).enqueue(notes.path, f"task{n}", 0.01) for n in range(100)]
    site.write(TWO)
    for times in (1, 2):
        worker.process.send_signal(signal.SIGHUP)
        await until(lambda times=times: worker.log.count("children.renewed") == times, 30)  # type: ignore[misc]
        assert [await version(site) for _ in range(6)] == ["the second one"] * 6
        await load.more()
    assert await asyncio.gather(*(task.result(timeout=30) for task in tasks)) == [
        f"task{n}" for n in range(100)
    ]
    assert await load.end() > 150
    assert notes.most() == 1
    assert "lost" not in worker.log
    worker.process.terminate()
    assert await asyncio.to_thread(worker.ended) == 0


@pytest.mark.parametrize("broken", ["import", "init"])
async def test_broken_code_leaves_the_old_children(site: Site, broken: str) -> None:
    site.write(ONE + "def init():\n    pass\n")
    worker = site.worker("--processes", "2", "--import", "life_code", "--init", "life_code:init")
    assert await version(site) == 1
    pids = {await site.pool().submit(jobs.pid) for _ in range(20)}
    bad = (
        "def version(:\n"
        if broken == "import"
        else TWO + "def init():\n    raise RuntimeError('no database')\n"
    )
    site.write(bad)
    worker.process.send_signal(signal.SIGHUP)
    await until(lambda: "the old children go on" in worker.log, 20)
    assert ("SyntaxError" if broken == "import" else "no database") in worker.log
    assert await version(site) == 1
    assert {await site.pool().submit(jobs.pid) for _ in range(20)} <= pids
    # Once it is mended, the next signal brings it.
    site.write(TWO + "def init():\n    pass\n")
    worker.process.send_signal(signal.SIGHUP)
    await until(lambda: "children.renewed" in worker.log, 20)
    assert await version(site) == "the second one"


async def test_there_are_never_fewer_children_and_what_runs_goes_on(notes: Notes, tmp_path: Path) -> None:
    release = tmp_path / "release"
    async with ProcessExecutor("p", max_workers=3) as pool:
        await pool.submit(jobs.pid)
        members = roster(pool)
        before = {child.pid for child in members.active}
        running = asyncio.create_task(pool.submit(own_jobs.wait_until, notes.path, str(release)))
        await notes.wait()
        renewing = asyncio.create_task(members.renew())
        fewest = 3
        while not renewing.done():
            fewest = min(fewest, sum(not child.leaving for child in members.active))
            await asyncio.sleep(0)
        await renewing
        assert fewest == 3
        assert not before & {child.pid for child in members.active}
        assert not running.done()
        old = next(spawner for spawner in members._old)
        release.touch()
        assert await asyncio.wait_for(running, 10) in before
        await until(lambda: not members._old)
        await until(lambda: old._process.poll() is not None)
        await until(lambda: len(members.spares) == 1)


async def test_a_child_begun_with_old_code_is_not_kept(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=2, spares=2, initializer=own_jobs.take_long) as pool:
        await pool.submit(jobs.pid)
        members = roster(pool)
        await until(lambda: len(members.spares) == 2)
        renewing = asyncio.create_task(members.renew())
        await until(lambda: members._hello)
        members.kill(
            members.active[0]
        )  # a child with the old code is begun, and is ready when that is replaced
        await until(lambda: len(members._hello) == 2)
        await renewing
        await until(lambda: len(members.spares) == 2 and not members._starting)
        assert {child.spawner for child in (*members.active, *members.spares)} == {members.spawner}
        assert len(members.active) == 2
