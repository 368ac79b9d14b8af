"""A worker's answer to ``genro-nats worker --check``: on a socket that only its user can reach.

Asked through its event loop, for a worker whose loop stands still serves nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from genro_nats.errors import ConfigurationError
from genro_nats.events import Events
from genro_nats.server.paths import private_directory, shared_directory

if TYPE_CHECKING:
    from genro_nats.worker.agent import WorkerAgent

__all__ = ["answering"]

_UNASKED: Final = "genro-nats worker --check won't find this worker; GENRO_NATS_HOME names another directory"


@asynccontextmanager
async def answering(agent: WorkerAgent, events: Events) -> AsyncIterator[None]:
    """Answer checks meanwhile. Where no socket can be made the worker works all the same, and says so."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(json.dumps(_facts(agent)).encode())
            writer.close()
            await writer.wait_closed()

    path = None
    try:
        directory = private_directory(private_directory(shared_directory()) / "workers")
        path = directory / f"{agent.id}.sock"
        # Under its name once it listens: what can't be connected to is removed as a dead worker's.
        fresh = path.with_suffix(".new")
        server = await asyncio.start_unix_server(answer, fresh)
        fresh.rename(path)
    except (OSError, ConfigurationError) as error:
        events("worker.unchecked", warning=f"{_UNASKED}: {error}")
        yield
        return
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _facts(agent: WorkerAgent) -> dict[str, object]:
    subjects = [service.subject for service in agent.services]
    return {"worker": agent.id, "pid": os.getpid(), "state": agent.state, "subjects": subjects}
