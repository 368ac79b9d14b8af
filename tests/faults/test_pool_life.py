"""What happens to whole pools: recycling under load, a lost template, owners and loops that end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from genro_nats import ConfigurationError, ExecutorError, ProcessExecutor, WorkerLostError
from tests.faults import jobs
from tests.faults.conftest import ROOT, Notes, alive, children, roster, until


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 3])
async def test_recycling_by_count_loses_nothing(notes: Notes, limit: int) -> None:
    async with ProcessExecutor("p", max_workers=2, spares=2, max_tasks_per_child=limit) as pool:
        calls = [pool.submit(jobs.work, notes.path, f"{n}", 0.0) for n in range(60)]
        assert await asyncio.wait_for(asyncio.gather(*calls), 20) == [f"{n}" for n in range(60)]
        pids = await asyncio.gather(*(pool.submit(jobs.pid) for _ in range(12)))
        assert max(Counter(pids).values()) <= limit
        assert notes.most() == 1
        assert roster(pool).lost == 0
        await until(lambda: len(children(pool)) == 2)


@pytest.mark.anyio
async def test_recycling_by_memory() -> None:
    limit = 150 << 20
    async with ProcessExecutor("p", max_workers=1, max_memory_per_child=limit) as pool:
        small = await pool.submit(jobs.pid)
        assert await pool.submit(jobs.eat, 1) == small
        await asyncio.sleep(0.06)  # memory is looked at every 50 ms at most
        assert await pool.submit(jobs.eat, 200) == small
        assert await pool.submit(jobs.pid) != small
        assert roster(pool).lost == 0


@pytest.mark.anyio
async def test_a_pool_survives_its_template(notes: Notes) -> None:
    async with ProcessExecutor("p", max_workers=2, spares=1) as pool:
        template = await pool.submit(jobs.template_pid)
        for _ in range(3):
            running = asyncio.create_task(pool.submit(jobs.work, notes.path, "running", 30))
            count = len(notes.lines())
            await notes.wait(count + 1)
            old = children(pool)
            os.kill(template, signal.SIGKILL)
            with pytest.raises(WorkerLostError):
                await asyncio.wait_for(running, 5)
            await until(lambda: not set(old) & set(children(pool)))  # noqa: B023
            queued = [pool.submit(jobs.nap, 0) for _ in range(20)]
            await asyncio.wait_for(asyncio.gather(*queued), 10)
            before, template = template, await pool.submit(jobs.template_pid)
            assert template != before
        await until(lambda: len(children(pool)) == 2 and len(roster(pool).spares) == 1)


@pytest.mark.anyio
async def test_a_pool_whose_initializer_fails(tmp_path: Path) -> None:
    flag = tmp_path / "fail"
    flag.touch()
    pool = ProcessExecutor("p", max_workers=2, initializer=jobs.fail_if, initargs=(str(flag),))
    with pytest.raises(RuntimeError, match="the file is there"):
        await asyncio.wait_for(pool.submit(jobs.pid), 10)
    flag.unlink()
    assert await pool.submit(jobs.pid)
    await pool.shutdown()


@pytest.mark.anyio
async def test_an_initializer_that_fails_later(tmp_path: Path) -> None:
    """Calls do not wait for ever for children that can't start; once these can, the pool is whole again."""
    flag = tmp_path / "fail"
    init = {"initializer": jobs.fail_if, "initargs": (str(flag),)}
    async with ProcessExecutor("p", max_workers=1, spares=0, **init) as pool:
        assert await pool.submit(jobs.pid)
        flag.touch()
        with pytest.raises(WorkerLostError):
            await pool.submit(jobs.exit_now, 1)
        with pytest.raises(ExecutorError, match="no children left: the file is there"):
            await asyncio.wait_for(pool.submit(jobs.pid), 10)
        flag.unlink()
        assert await asyncio.wait_for(_until_it_works(pool), 20)


async def _until_it_works(pool: ProcessExecutor) -> int:
    while True:
        try:
            return int(await pool.submit(jobs.pid))
        except ExecutorError:
            pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("no_such_module_here", "no_such_module_here"),
        ("faults_raises", "ZeroDivisionError"),
        ("faults_sys_exit", "SystemExit"),
        ("faults_os_exit", "status 7"),
        ("faults_segfault", "status -11"),
    ],
)
async def test_imports_that_fail(
    module: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "faults_raises.py").write_text("1 / 0")
    (tmp_path / "faults_sys_exit.py").write_text("import sys; sys.exit(4)")
    (tmp_path / "faults_os_exit.py").write_text("import os; os._exit(7)")
    (tmp_path / "faults_segfault.py").write_text("import ctypes; ctypes.string_at(0)")
    pool = ProcessExecutor("p", max_workers=1, imports=[module])
    with pytest.raises(ExecutorError, match=text) as failed:
        await asyncio.wait_for(pool.start(), 10)
    assert isinstance(failed.value, ConfigurationError) == (not text.startswith("status"))
    await pool.shutdown()


OWNER = """
import asyncio, os, sys, time
from genro_nats import ProcessExecutor
from tests.faults import jobs

async def main(job):
    pool = ProcessExecutor("p", max_workers=2, spares=1, threads=int(sys.argv[3]))
    template = await pool.submit(jobs.template_pid)
    call = asyncio.create_task(pool.submit(job, *sys.argv[4:]) if job is jobs.spin
                               else pool.submit(job, sys.argv[4], "x", 60))
    while not os.path.exists(sys.argv[4]):
        await asyncio.sleep(0.005)
    while len(pool._home.engine._pool.roster.spares) < 1:
        await asyncio.sleep(0.005)
    children = [child.pid for child in pool._home.engine._pool.roster.children]
    print(template, *children, flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
    await asyncio.sleep(60)

asyncio.run(main(getattr(jobs, sys.argv[1])))
"""


@pytest.mark.anyio
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("job", ["spin", "work"])
async def test_nothing_outlives_an_owner_that_was_killed(notes: Notes, job: str, threads: int) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, job, "kill", str(threads), notes.path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    out, _ = await asyncio.to_thread(owner.communicate, timeout=20)
    pids = list(map(int, out.split()))
    assert len(pids) == 4, out
    assert owner.returncode == -9
    await until(lambda: not any(map(alive, pids)), 2)


def test_a_loop_that_was_closed_without_telling(notes: Notes) -> None:
    pool = ProcessExecutor("p", max_workers=1, spares=1)
    pids = []
    for _ in range(3):
        loop = asyncio.new_event_loop()
        pids.append(loop.run_until_complete(pool.submit(jobs.pid)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert len(set(pids)) == 3
    _gone(pids, 3)
    assert asyncio.run(pool.submit(jobs.pid)) not in pids


def test_a_loop_that_just_stops_running() -> None:
    pool = ProcessExecutor("p", max_workers=1, spares=0)
    loop = asyncio.new_event_loop()
    first = loop.run_until_complete(pool.submit(jobs.pid))
    assert loop.run_until_complete(pool.submit(jobs.pid)) == first
    assert asyncio.run(pool.submit(jobs.pid)) != first
    _gone([first], 3)
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()


@pytest.mark.anyio
async def test_a_pool_that_is_dropped_leaves_its_loop_usable() -> None:
    pids = []
    for _ in range(4):
        pool = ProcessExecutor("p", max_workers=1, spares=0)
        pids.append(await pool.submit(jobs.pid))
        del pool
        import gc

        gc.collect()
        await asyncio.sleep(0)
    begin = time.monotonic()
    async with ProcessExecutor("q", max_workers=2) as pool:
        await asyncio.wait_for(asyncio.gather(*(pool.submit(jobs.nap, 0) for _ in range(50))), 5)
    assert time.monotonic() - begin < 5
    await until(lambda: not any(map(alive, pids)), 3)


def _gone(pids: list[int], limit: float) -> None:
    begin = time.monotonic()
    while any(map(alive, pids)):
        assert time.monotonic() - begin < limit
        time.sleep(0.005)
