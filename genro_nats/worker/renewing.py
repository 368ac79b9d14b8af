"""A rolling restart of a worker's children: each pool in turn, and again if it is asked for meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from genro_nats.codec.functions import label
from genro_nats.errors import ExecutorError
from genro_nats.events import Events
from genro_nats.worker.service import PoolService

__all__ = ["Renewing"]

log: Final = logging.getLogger("genro_nats.worker")


class Renewing:
    """Renews the children of these pools, in the background."""

    def __init__(self, services: Sequence[PoolService], events: Events) -> None:
        self._services = services
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Renew; what is asked for while that goes on is done once more after it."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._renew())

    def close(self) -> None:
        """Stop where it is. Can be repeated."""
        if self._task is not None:
            self._task.cancel()

    async def _renew(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            self._events("children.renewing", pools=len(self._services))
            for service in self._services:
                await self._renew_pool(service)

    async def _renew_pool(self, service: PoolService) -> None:
        try:
            await service.children.renew()
        except Exception as error:
            trace = None if isinstance(error, ExecutorError) else error
            log.error("pool %s: the old children go on: %s", service.subject, error, exc_info=trace)
            self._events("children.kept", pool=service.subject, type=label(type(error)))
