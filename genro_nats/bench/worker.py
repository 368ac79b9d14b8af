"""The worker process that the benchmark measures: ``python -m genro_nats.bench.worker``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from genro_nats.bench.peer import run_peer
from genro_nats.config import PoolOptions
from genro_nats.events import Events
from genro_nats.worker.agent import ServedPool, WorkerAgent

__all__: list[str] = []


async def _serve(config: dict[str, Any], say: Callable[[str], None], stopped: asyncio.Event) -> None:
    def observe(name: str, facts: dict[str, Any]) -> None:
        if name == "worker.ready":
            say("ready")

    options = PoolOptions.build("nats", config["options"])
    agent = WorkerAgent([ServedPool(options)], options, drain_timeout=5.0, events=Events([observe]))
    running = asyncio.create_task(agent.run())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    agent.stop()
    await running


if __name__ == "__main__":
    run_peer(_serve)
