"""A fleet under load: a container is killed, and all of them are replaced."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor, WorkerLostError
from tests.docker.conftest import mounted
from tests.docker.engine import run
from tests.docker.fleet import Fleet, marks
from tests.docker.load import Load

CODE = Path(__file__).parent / "code"
SERVE = ("--subject", "tasks.fleet", "--lease", "2s", "--processes", "2", "--import", "fleet_jobs")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that the fleet has in its mounted directory."""
    monkeypatch.syspath_prepend(CODE)
    yield import_module("fleet_jobs")
    del sys.modules["fleet_jobs"]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """That directory, readable to the worker's user."""
    directory = tmp_path / "code"
    directory.mkdir()
    (directory / "fleet_jobs.py").write_text((CODE / "fleet_jobs.py").read_text())
    with zipfile.ZipFile(directory / "fleet_jobs-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(CODE / "fleet_jobs.py", "fleet_jobs.py")
        wheel.writestr("fleet_jobs-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return directory


def caller(fleet: Fleet) -> NatsExecutor:
    return NatsExecutor("outside", subject="tasks.fleet", url=fleet.url, lease=2, workers_timeout=60)


def test_a_killed_container_loses_what_it_ran_and_no_task(
    tag: str, jobs: Any, code: Path, tmp_path: Path
) -> None:
    file = mounted(code, "worker", "--path", "/code", *SERVE)
    with Fleet(tag, file) as fleet:
        fleet.up("worker", workers=3)
        load, tasks = asyncio.run(killed(fleet, jobs))
        assert len(load.done) + len(load.errors) == load.sent
        print(f"{load.sent} calls sent, {len(load.errors)} lost with their worker")
        assert {type(error) for error in load.errors.values()} == {WorkerLostError}
        # What ran or waited there and nothing else: two workers of three had no loss.
        assert len(load.errors) <= load.sent / 2
        begun = marks(fleet.containers("worker", all=True), tmp_path)
        assert [n for n in range(load.sent) if begun[n] > 1] == []  # a call never ran twice
        assert all(begun[number] == 1 for number in load.done)
        assert sorted(tasks) == list(range(1_000_000, 1_000_100))  # each task has its outcome
        assert all(begun[number] >= 1 for number in tasks)


async def killed(fleet: Fleet, jobs: Any) -> tuple[Load, list[int]]:
    async with caller(fleet) as pool:
        load = Load(pool(jobs.mark), 0.2)
        async with asyncio.timeout(90):
            while len(load.hosts) < 3:  # each of them has children, and gets work
                _, host = await pool.submit(jobs.mark, -1, 0)
                load.hosts[host] += 1
            # More than six children can do meanwhile, so that the killed worker has some of it.
            async with load.steady(40):
                job = pool(jobs.mark)
                stored = await asyncio.gather(*(job.enqueue(1_000_000 + n, 0.05) for n in range(100)))
                await asyncio.sleep(0.5)  # of load, before
                victim = fleet.containers("worker")[0]
                await asyncio.to_thread(run, "docker", "kill", victim)
                await asyncio.sleep(2)  # and after
            results = await asyncio.gather(*(task.result(timeout=60) for task in stored))
        return load, [number for number, _ in results]


def test_a_fleet_is_replaced_under_load_and_nothing_is_lost(
    tag: str, build: Callable[..., str], jobs: Any, code: Path
) -> None:
    with Fleet(tag, mounted(code, "worker", "--path", "/code", *SERVE)) as fleet:
        fleet.up("worker", workers=2)
        fleet.variables["WORKER_TAG"] = build("v2")
        # The new release has its code from a wheel.
        fleet.files = [mounted(code, "worker", "--path", "/code/fleet_jobs-1.0-py3-none-any.whl", *SERVE)]
        load, results, old = asyncio.run(rolled(fleet, jobs))
        print(
            f"{load.sent} calls sent while two workers were replaced; the slowest took {load.slowest:.1f} s"
        )
        assert load.errors == {}
        assert len(load.done) == load.sent
        new = {container[:12] for container in fleet.containers("worker")}
        assert old.isdisjoint(new)
        assert set(load.hosts) == old | new
        assert sorted(results) == list(range(1_000_000, 1_000_300))


async def rolled(fleet: Fleet, jobs: Any) -> tuple[Load, list[int], set[str]]:
    old = {container[:12] for container in fleet.containers("worker")}
    async with caller(fleet) as pool:
        load = Load(pool(jobs.mark), 0.002)
        async with asyncio.timeout(120):
            async with load.steady(500):
                while not old <= set(load.hosts):
                    await asyncio.sleep(0.05)
                job = pool(jobs.mark)
                stored = await asyncio.gather(*(job.enqueue(1_000_000 + n, 0.02) for n in range(300)))
                await asyncio.to_thread(fleet.up, "worker", workers=2)
                while not set(load.hosts) - old or len(load.hosts) < 4:
                    await asyncio.sleep(0.05)
            results = await asyncio.gather(*(task.result(timeout=60) for task in stored))
        return load, [number for number, _ in results], old
