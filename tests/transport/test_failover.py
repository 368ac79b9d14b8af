"""Several addresses: a dead one is passed over, and when the server is killed calls go on at the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.testing import WorkerProcess
from tests.transport.brokers import Brokers, free_port

pytestmark = pytest.mark.anyio


async def _lost(pool: NatsExecutor) -> None:
    assert pool._home is not None
    engine: Any = pool._home.engine
    async with asyncio.timeout(10):
        while engine.facts()["connected"]:
            await asyncio.sleep(0.005)


async def test_calls_go_on_at_the_next_server(brokers: Brokers) -> None:
    first, dead, next_port = brokers(), free_port(), free_port()
    urls = [f"nats://127.0.0.1:{dead}", first.url(), f"nats://127.0.0.1:{next_port}"]
    with WorkerProcess({"url": urls, "subject": "tasks.way", "max_workers": 1, "spares": 0}):
        async with NatsExecutor("way", url=urls, subject="tasks.way") as pool:
            assert await pool.submit(abs, -1) == 1
            first.kill()
            await _lost(pool)
            waiting = [asyncio.ensure_future(pool.submit(abs, -number)) for number in range(20)]
            await asyncio.to_thread(brokers, port=next_port)
            async with asyncio.timeout(15):
                assert await asyncio.gather(*waiting) == list(range(20))
