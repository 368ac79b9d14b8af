"""The durable tasks of all pools of one worker, as far as the server has JetStream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from genro_nats.config import PoolOptions
from genro_nats.errors import ExecutorError, PermissionDeniedError, TransportError
from genro_nats.events import Events
from genro_nats.transport.identity import identity
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Connection
from genro_nats.transport.subjects import NONE, api_inbox
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.service import PoolService
from genro_nats.worker.tasks.service import TaskService

__all__ = ["WorkerTasks"]

log: Final = logging.getLogger("genro_nats.worker")

_AGAIN: Final = 5.0  # seconds until JetStream is looked for again


class WorkerTasks:
    """Starts a TaskService per pool. A server without JetStream is waited for: calls need none."""

    def __init__(
        self,
        connection: Connection,
        options: PoolOptions,
        worker: str,
        events: Events,
        transfer: Callable[[], Transfer],
    ) -> None:
        inbox = api_inbox(options.prefix, f"{identity(options) or NONE}.{worker}")
        self._js = JetStream(connection, inbox)
        self._worker = worker
        self._events = events
        self._transfer = transfer
        self._services: dict[str, TaskService] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._ready = False

    def add(self, pool: PoolService, options: PoolOptions) -> None:
        """Serve the tasks of this pool too."""
        service = TaskService(
            self._js, pool.children, options, self._worker, self._events, pool.trust, self._transfer
        )
        pool.on_freed = service.freed
        self._services[pool.subject] = service

    async def start(self) -> None:
        """Take tasks.

        Raises:
            StreamMismatchError, ServerTooOldError, PermissionDeniedError: as their texts say.
        """
        await self._js.start()
        try:
            await self._start_services()
        except PermissionDeniedError:
            raise  # waiting would not help
        except TransportError as error:
            self._events("tasks.unavailable", error=str(error))
            self._retrying = asyncio.create_task(self._retry())

    async def _start_services(self) -> None:
        await self._js.api("INFO", patience=0.0)
        for service in self._services.values():
            await service.start()
        self._ready = True

    async def _retry(self) -> None:
        while not self._ready:
            await asyncio.sleep(_AGAIN)
            try:
                await self._start_services()
            except ExecutorError as error:
                if isinstance(error, TransportError) and not isinstance(error, PermissionDeniedError):
                    continue
                log.error("durable tasks are not served: %s", error)
                self._events("tasks.refused", error=str(error))
                return
            self._events("tasks.ready")

    async def drain(self, timeout: float) -> int:
        """Take no more tasks and finish those in hand; how many were left."""
        if self._retrying is not None:
            self._retrying.cancel()
        return sum(await asyncio.gather(*(service.drain(timeout) for service in self._services.values())))

    async def aclose(self) -> None:
        """Let go of all tasks. Can be repeated."""
        if self._retrying is not None:
            self._retrying.cancel()
        for service in self._services.values():
            await service.aclose()
        await self._js.aclose()

    def tick(self) -> None:
        """Once a second."""
        for service in self._services.values():
            if service.started:
                service.tick()

    def facts(self) -> dict[str, Any]:
        """Counters of each pool, by subject."""
        return {subject: service.facts() for subject, service in self._services.items()}
