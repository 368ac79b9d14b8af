"""The worker: one connection, one or several pools, from ready to drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from genro_nats import __version__
from genro_nats.codec.frame import FrameKind, decode_all
from genro_nats.codec.signing import Flaw
from genro_nats.config import PoolOptions
from genro_nats.errors import DecodeError
from genro_nats.events import Events
from genro_nats.transport.address import Address
from genro_nats.transport.guard import make_guard
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.subjects import drain_inbox, is_inbox, worker_inbox
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.code_version import code_version as find_code_version
from genro_nats.worker.discovery import Discovery
from genro_nats.worker.errors import LastErrors
from genro_nats.worker.functions import FunctionShelf
from genro_nats.worker.presence import Presence
from genro_nats.worker.renewing import Renewing
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
    seconds that calls in hand get to finish. ``code_version``: of the user's code, as
    others shall see it.
    """

    def __init__(
        self,
        pools: Sequence[ServedPool],
        connection: PoolOptions,
        *,
        drain_timeout: float = 30.0,
        events: Events | None = None,
        code_version: str = "",
    ) -> None:
        self.id = os.urandom(8).hex()
        self.host = socket.gethostname()
        self._pools = pools
        self._options = connection
        self._drain_timeout = drain_timeout
        self._events = events or Events()
        self._stated_code = code_version
        self._code: str | None = None
        self._left = 0
        self._address = Address(connection)
        self._guard = make_guard(connection)
        self._guard.on_rejected.append(self._rejected)
        self._connection = Connection(
            self._address,
            f"genro-nats worker {self.id}",
            connect_timeout=connection.connect_timeout,
            guard=self._guard,
        )
        self._announced = False
        self._stopping = asyncio.Event()
        self._aborting = asyncio.Event()
        self.services: list[PoolService] = []
        self.renewing = Renewing(self.services, self._events)
        self._errors = LastErrors()
        who = (self._connection, connection.prefix, self.id, self.shown)
        self.presence, self._discovery = Presence(*who), Discovery(*who)
        for observer in (self._errors, self.presence.changed):
            self._events.add(observer)
        self.tasks = WorkerTasks(self._connection, connection, self.id, self._events, lambda: self._transfer)

    async def run(self) -> int:
        """Serve until stopped; the exit code: 0 when every call in hand was finished, else 1.

        Raises:
            ConnectionLostError: no server at the start.
            PermissionDeniedError: the server does not let it hear what a worker has to.
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
        await self._prepare()
        ticking = asyncio.create_task(self._tick())
        try:
            await self._start()
            await self._stopping.wait()
            code = await self._drain()
            self._raise_if_starved()
            return code
        finally:
            ticking.cancel()
            await self._leave()

    async def _prepare(self) -> None:
        """Make what serves, and show itself."""
        connection = self._connection
        inbox = worker_inbox(self._options.prefix, self.id)
        self._outbox = Outbox(connection, inbox)
        self._transfer = Transfer(self._options, f"genro-nats worker {self.id}, payloads", self._guard)
        self._functions = FunctionShelf(
            connection, self._outbox, self._transfer, self._options.function_cache, self._events
        )
        connection.on_down.append(lambda: self._events("server.down", url=connection.shown))
        connection.on_up.append(lambda: self._events("server.up", url=connection.shown))
        connection.on_lame_duck.append(lambda: self._events("server.leaving", url=connection.shown))
        connection.streaming.append(lambda: any(service.streaming for service in self.services))
        await connection.subscribe(inbox, self._controlled)
        await connection.subscribe(drain_inbox(self._options.prefix, self.id), self._told_to_leave)
        self.services += [
            PoolService(
                connection,
                self._outbox,
                self._transfer,
                self._functions,
                pool.options,
                pool.kind,
                self._events,
            )
            for pool in self._pools
        ]
        await self.presence.start()
        await self._discovery.start()

    async def _start(self) -> None:
        """Take calls and tasks, and say so."""
        for service, pool in zip(self.services, self._pools, strict=True):
            service.children.when_starved = partial(self._starved, service)
            await service.start()
            self.tasks.add(service, pool.options)
        await self.tasks.start()
        await self._connection.flush()
        self._connection.denials.require()
        self._announce()
        self.presence.become("serving")

    async def _leave(self) -> None:
        """End what serves; what was to be said is sent."""
        self.renewing.close()
        await self.tasks.aclose()
        for service in self.services:
            await service.aclose()
        self._functions.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE):
                await self._outbox.aclose()
        await self._transfer.aclose()
        self.presence.become("gone")
        self.presence.close()

    @property
    def state(self) -> str:
        """What it does now, in a word: only "serving" means that it takes calls and can run them."""
        if self._stopping.is_set():
            return "draining"
        if not self._announced:
            return "starting"
        if not self._connection.connected:
            return "disconnected"
        return "serving" if all(s.children.roster.active for s in self.services) else "without children"

    def _announce(self) -> None:
        self._announced = True
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
        self.renewing.close()
        self.presence.become("draining")
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
            self._left = sum(service.in_hand for service in self.services)
            self._events("worker.aborted")
            return 1
        left = self._left = sum(draining.result())
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
            self.presence.tick()

    def renew(self) -> None:
        """Replace all children by ones with freshly imported code; what fails leaves the old ones."""
        if not self._stopping.is_set():
            self._code = None
            self.renewing.begin()

    def _starved(self, service: PoolService, error: Exception) -> None:
        """A pool has lost its last child and can't start another: whoever started us has to know."""
        service.starved = error
        self._stopping.set()

    def _raise_if_starved(self) -> None:
        for service in self.services:
            if service.starved is not None:
                raise service.starved

    def _told_to_leave(self, message: Message) -> None:
        try:
            told = any(frame.kind == FrameKind.LEAVE for frame in decode_all(message.data))
        except DecodeError as error:
            self._guard.unreadable(message.subject, error)
            return
        if told:
            self._events("worker.told", what="drain")
            self._stopping.set()
            if is_inbox(self._options.prefix, message.reply):
                self._connection.publish_now(message.reply, self.presence.shown())

    def _controlled(self, message: Message) -> None:
        for service in self.services:
            service.control(message)

    def _rejected(self, subject: str, flaw: Flaw) -> None:
        self._events("message.rejected", subject=subject, reason=flaw.reason, error=flaw.text)

    def shown(self) -> dict[str, Any]:
        """What everybody may know of this worker: no secrets, no arguments, no texts of exceptions."""
        tasks = self.tasks.facts()
        return {
            "version": __version__,
            "code": self.code,
            "host": self.host,
            "pid": os.getpid(),
            "prefix": self._options.prefix,
            "left": self._left,
            "errors": self._errors.facts(),
            "functions": self._functions.facts(),
            "distrusted": dict(self._guard.rejected),
            "pools": [
                {**facts, "tasks": tasks.get(facts["subject"], {})}
                for facts in (service.facts() for service in self.services)
            ],
        }

    @property
    def code(self) -> str:
        """The version of the user's code; found again after each renewal."""
        if self._code is None:
            self._code = find_code_version(self._stated_code)
        return self._code
