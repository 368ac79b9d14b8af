"""The echo process behind the floor: ``python -m genro_nats.bench.echo``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from genro_nats.bench.peer import run_peer
from genro_nats.transport.floor import serve_echo

__all__: list[str] = []


async def _serve(config: dict[str, Any], say: Callable[[str], None], stopped: asyncio.Event) -> None:
    await serve_echo(
        config["url"], config["user"], config["password"], config["subject"], lambda: say("ready"), stopped
    )


if __name__ == "__main__":
    run_peer(_serve)
