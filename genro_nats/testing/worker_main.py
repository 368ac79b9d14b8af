"""``python -m genro_nats.testing.worker_main``: a worker for tests.

One JSON line on standard input says what to serve (so that no password shows
among a process's arguments): ``{"options": {...}, "kind": "process",
"drain_timeout": 10}``. It says ``ready ID`` on standard output, drains at SIGTERM,
and leaves when its standard input ends, as it does when the test process dies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import Any

from genro_nats.config import PoolOptions
from genro_nats.events import Events
from genro_nats.worker.agent import ServedPool, WorkerAgent

__all__ = ["main"]


def main() -> int:
    """Serve until told to stop; the exit code of ``WorkerAgent.run``."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    return asyncio.run(_serve(json.loads(sys.stdin.readline())))


async def _serve(order: dict[str, Any]) -> int:
    options = PoolOptions.build("nats", order["options"])
    agent = WorkerAgent(
        [ServedPool(options, order["kind"])],
        options,
        drain_timeout=order["drain_timeout"],
        events=Events([_tell_ready]),
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop)
    loop.add_reader(sys.stdin.fileno(), _owner_gone, agent)
    return await agent.run()


def _owner_gone(agent: WorkerAgent) -> None:
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    agent.stop()
    agent.stop()


def _tell_ready(name: str, facts: dict[str, Any]) -> None:
    if name == "worker.ready":
        sys.stdout.write(f"ready {facts['worker']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
