"""The worker behind the floor of tasks: ``python -m genro_nats.bench.task_echo``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from genro_nats.bench.peer import run_peer
from genro_nats.transport.task_floor import serve_task_floor

__all__: list[str] = []


async def _serve(config: dict[str, Any], say: Callable[[str], None], stopped: asyncio.Event) -> None:
    await serve_task_floor(config["url"], config["user"], config["password"], lambda: say("ready"), stopped)


if __name__ == "__main__":
    run_peer(_serve)
