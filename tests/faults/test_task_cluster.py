"""Durable tasks on three servers with three replicas: the leader killed under load, a key raced for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.config import PoolOptions
from genro_nats.testing import WorkerFactory
from tests.faults import task_jobs
from tests.faults.conftest import Notes
from tests.faults.durable import Ledger, open_ledger
from tests.transport.cluster import Cluster, leader

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]

OPTIONS: dict[str, Any] = {"subject": "faults", "prefix": "c", "replicas": 3, "lease": 3.0}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        for name in cluster.processes:
            cluster.kill(name)


@pytest.fixture
async def ledger(cluster: Cluster) -> AsyncIterator[Ledger]:
    async with open_ledger(PoolOptions(**OPTIONS, url=cluster.urls)) as ledger:
        yield ledger


@pytest.fixture
async def pool(cluster: Cluster) -> AsyncIterator[NatsExecutor]:
    pool = NatsExecutor("faults", PoolOptions(**OPTIONS, url=cluster.urls))
    yield pool
    await pool.shutdown(wait=False)


async def test_leaders_are_killed_under_load(
    cluster: Cluster, ledger: Ledger, pool: NatsExecutor, notes: Notes
) -> None:
    factory = WorkerFactory({**OPTIONS, "url": list(cluster.urls)})
    try:
        for _ in range(2):
            factory("faults", max_workers=1, spares=0)
        work = pool(task_jobs.work_item)
        handles = await work.enqueue_many([(notes.path, n, 0.01) for n in range(500)])
        waiting = [asyncio.ensure_future(task.result(timeout=60)) for task in handles]
        await notes.wait(50, 30)
        cluster.kill(await leader(ledger.js, ledger.subjects.states_stream))
        more = [await work.enqueue((notes.path, n, 0.0)) for n in range(500, 600)]
        waiting += [asyncio.ensure_future(task.result(timeout=60)) for task in more]
        assert await asyncio.gather(*waiting) == list(range(600))
        assert await ledger.check([task.id for task in (*handles, *more)], 30) == {"completed": 600}
        assert len(notes.counts()) == 600
    finally:
        factory.stop()


async def test_fifty_callers_race_for_a_key(
    cluster: Cluster, ledger: Ledger, pool: NatsExecutor, notes: Notes
) -> None:
    pools = [NatsExecutor("faults", PoolOptions(**OPTIONS, url=cluster.urls)) for _ in range(5)]
    try:
        for other in pools:
            await other.start()
        races = [
            pools[n % 5](task_jobs.work).options(key="one", priority=("high", "normal", "low")[n % 3])
            for n in range(50)
        ]
        handles = await asyncio.gather(*(race.enqueue(notes.path, n) for n, race in enumerate(races)))
        assert len({handle.id for handle in handles}) == 1
        assert await ledger.queued() == 1
    finally:
        for other in pools:
            await other.shutdown(wait=False)
