"""A worker for one subject, until SIGTERM: ``python -m tests.integrations.working tasks.heavy``."""

from __future__ import annotations

import asyncio
import signal
import sys

from genro_nats.config import PoolOptions
from genro_nats.events import Events
from genro_nats.worker.agent import ServedPool, WorkerAgent


async def main(subject: str) -> int:
    options = PoolOptions.build("nats", {"subject": subject, "max_workers": 2})
    events = Events([lambda name, facts: print(name, flush=True)])
    agent = WorkerAgent([ServedPool(options)], options, drain_timeout=5, events=events)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stop)
    return await agent.run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
