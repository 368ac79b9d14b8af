"""A server that says it will leave: workers and callers move, and lose nothing."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from genro_nats.server.binary import find_server
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Fleet, Notes, until
from tests.transport.cluster import Cluster, free_ports
from tests.worker_life import jobs as own_jobs
from tests.worker_life.conftest import Load, fleet_at

pytestmark = pytest.mark.anyio


def lame(process: subprocess.Popen[bytes]) -> None:
    subprocess.run([find_server(), "--signal", f"ldm={process.pid}"], check=True, timeout=10)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        for name in cluster.processes:
            cluster.kill(name)


@pytest.fixture
async def fleet(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Fleet]:
    found = fleet_at(tmp_path, cluster.urls[0])  # the others are found by what this one says
    yield found
    await found.aclose()


async def test_with_another_server_it_moves_and_loses_nothing(
    cluster: Cluster, fleet: Fleet, notes: Notes
) -> None:
    options = {"replicas": 3, "lease": 3.0}
    worker = await fleet.worker(**options)
    other = await fleet.worker(**options)
    pool = fleet.caller(**options)
    load = Load(pool, notes, lanes=2)  # children are left for the tasks
    await load.more()
    tasks = [await pool(task_jobs.work).enqueue(notes.path, f"task{n}", 0.02) for n in range(60)]
    lame(cluster.processes["n0"])
    for mover in (worker, other):
        await until(lambda mover=mover: mover.count("server.leaving") and mover.count("server.up"))  # type: ignore[misc]
    await load.more()
    # Nobody is left there: its end is noticed by nobody.
    cluster.kill("n0")
    await load.more()
    assert await asyncio.gather(*(task.result(timeout=30) for task in tasks)) == [
        f"task{n}" for n in range(60)
    ]
    assert await load.end() > 150
    assert worker.count("server.up") == other.count("server.up") == 1
    assert notes.most() == 1


async def test_an_open_stream_ends_before_the_connection_moves(tmp_path: Path) -> None:
    ports = free_ports(4)
    servers = []
    for number, (port, own) in enumerate(zip(ports[:2], ports[2:], strict=True)):
        config = tmp_path / f"{number}.conf"
        routes = ", ".join(f'"nats://127.0.0.1:{route}"' for route in ports[2:])
        config.write_text(
            f'listen: "127.0.0.1:{port}"\ncluster {{ name: c, listen: "127.0.0.1:{own}", routes: [{routes}] }}\n'
        )
        servers.append(subprocess.Popen([find_server(), "-c", config, "-l", tmp_path / f"{number}.log"]))
    fleet = fleet_at(tmp_path, f"nats://127.0.0.1:{ports[0]}")
    try:
        worker = await fleet.worker()
        pool = fleet.caller()
        items = pool(own_jobs.count_slowly).stream(40, 0.02)
        got = [await anext(items)]
        lame(servers[0])
        await until(lambda: worker.count("server.leaving"))
        got += [item async for item in items]
        assert got == list(range(40))
        await until(lambda: worker.count("server.up"))
        assert await asyncio.wait_for(pool.submit(jobs.pid), 10)
    finally:
        await fleet.aclose()
        for server in servers:
            server.kill()
            server.wait(10)


async def test_without_another_server_it_goes_on_and_comes_back(tmp_path: Path, notes: Notes) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "alone.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\npid_file: "{tmp_path}/pid"\n'
        'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n'
    )
    start = [str(find_server()), "-c", str(config), "-l", str(tmp_path / "alone.log")]
    server = subprocess.Popen(start)
    fleet = fleet_at(tmp_path, f"nats://127.0.0.1:{port}")
    try:
        worker = await fleet.worker()
        load = Load(fleet.caller(), notes)
        await load.more()
        lame(server)
        await until(lambda: worker.count("server.leaving"))
        await load.more()  # in its last second it still serves
        await until(lambda: server.poll() is not None, 30)
        server = subprocess.Popen(start)
        await load.more(limit=60)
        assert await load.end() > 150
        assert worker.process.poll() is None
    finally:
        await fleet.aclose()
        server.kill()
        server.wait(10)
