"""The worker: one connection, one or several pools, from ready to drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from genro_nats.config import PoolOptions
from genro_nats.events import Events
from genro_nats.transport.address import Address
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.subjects import worker_inbox
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.service import PoolService
from genro_nats.worker.tasks.pools import WorkerTasks

__all__ = ["ServedPool", "WorkerAgent"]

_TICK: Final = 1.0  # seconds
_SETTLE: Final = 1.0  # seconds without a sign of it that a leaving worker waits for a caller


@dataclass(frozen=True, slots=True)
class ServedPool:
    """One pool to be served: its options, and the kind of its children."""

    options: PoolOptions
    kind: str = "process"


class WorkerAgent:
    """Serves pools until ``stop`` is asked for.

    ``connection``: options that say where the server is. ``drain_timeout``:
    seconds that calls in hand get to finish.
    """

    def __init__(
        self,
        pools: Sequence[ServedPool],
        connection: PoolOptions,
        *,
        drain_timeout: float = 30.0,
        events: Events | None = None,
    ) -> None:
        self.id = os.urandom(8).hex()
        self.host = socket.gethostname()
        self._pools = pools
        self._options = connection
        self._drain_timeout = drain_timeout
        self._events = events or Events()
        self._address = Address(connection)
        self._connection = Connection(
            self._address, f"genro-nats worker {self.id}", connect_timeout=connection.connect_timeout
        )
        self._stopping = asyncio.Event()
        self._aborting = asyncio.Event()
        self.services: list[PoolService] = []
        self.tasks = WorkerTasks(
            self._connection, connection.prefix, self.id, self._events, lambda: self._transfer
        )

    async def run(self) -> int:
        """Serve until stopped; the exit code: 0 when every call in hand was finished, else 1.

        Raises:
            ConnectionLostError: no server at the start.
            Exception: what keeps a pool's children from starting.
        """
        await self._connection.start()
        try:
            return await self._serve()
        finally:
            await self._connection.aclose()

    def stop(self) -> None:
        """Drain and leave; asked a second time, leave at once."""
        if self._stopping.is_set():
            self._aborting.set()
        self._stopping.set()

    async def _serve(self) -> int:
        connection = self._connection
        inbox = worker_inbox(self._options.prefix, self.id)
        self._outbox = Outbox(connection, inbox)
        self._transfer = Transfer(self._options, f"genro-nats worker {self.id}, payloads")
        connection.on_down.append(lambda: self._events("server.down", url=connection.shown))
        connection.on_up.append(lambda: self._events("server.up", url=connection.shown))
        await connection.subscribe(inbox, self._controlled)
        self.services = [
            PoolService(connection, self._outbox, self._transfer, pool.options, pool.kind, self._events)
            for pool in self._pools
        ]
        ticking = asyncio.create_task(self._tick())
        try:
            for service, pool in zip(self.services, self._pools, strict=True):
                await service.start()
                self.tasks.add(service, pool.options)
            await self.tasks.start()
            await connection.flush()
            self._announce()
            await self._stopping.wait()
            return await self._drain()
        finally:
            ticking.cancel()
            await self.tasks.aclose()
            for service in self.services:
                await service.aclose()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE):
                    await self._outbox.aclose()
            await self._transfer.aclose()

    def _announce(self) -> None:
        for service in self.services:
            self._events(
                "worker.ready",
                worker=self.id,
                host=self.host,
                pid=os.getpid(),
                subject=service.subject,
                children=len(service.children.roster.active),
                url=self._connection.shown,
            )

    async def _drain(self) -> int:
        self._events("worker.draining", timeout=self._drain_timeout)
        pools = (service.drain(self._drain_timeout) for service in self.services)
        draining = asyncio.gather(*pools, self.tasks.drain(self._drain_timeout))
        aborting = asyncio.ensure_future(self._aborting.wait())
        waits: list[asyncio.Future[Any]] = [draining, aborting]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        aborting.cancel()
        if not draining.done():
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await draining
            self._events("worker.aborted")
            return 1
        left = sum(draining.result())
        for service in self.services:
            await service.settled(_SETTLE, self._aborting)
        self._events("worker.drained", left=left)
        return 1 if left else 0

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for service in self.services:
                service.tick()
            self.tasks.tick()

    def _controlled(self, message: Message) -> None:
        for service in self.services:
            service.control(message)

    def facts(self) -> dict[str, Any]:
        """Who this worker is and how its pools do."""
        return {
            "worker": self.id,
            "host": self.host,
            "pid": os.getpid(),
            "pools": [service.facts() for service in self.services],
            "tasks": self.tasks.facts(),
        }
