"""The tasks of a NATS pool, as its engine keeps them: everything in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from genro_nats.config import PoolOptions
from genro_nats.errors import (
    CallTimeoutError,
    ExecutorClosedError,
    ExecutorError,
    TaskNotFoundError,
)
from genro_nats.executor.nats_tasks.graves import Graves
from genro_nats.executor.nats_tasks.listening import Listening
from genro_nats.executor.nats_tasks.lookup import Lookup
from genro_nats.executor.nats_tasks.outcomes import Outcomes
from genro_nats.executor.nats_tasks.reading import ASKED, Reading
from genro_nats.executor.nats_tasks.recurring import Recurring
from genro_nats.executor.nats_tasks.submit import Backlog, Submitter
from genro_nats.executor.nats_tasks.watch import Watch
from genro_nats.executor.wire import CallEncoder
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.record import Stored
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule, ScheduleSpec
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.status import TaskState, TaskStatus
from genro_nats.tasks.store import StateStore
from genro_nats.tasks.streams import require_streams, streams_exist
from genro_nats.transport.clock import ServerClock
from genro_nats.transport.identity import identity
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Connection
from genro_nats.transport.subjects import NONE, TaskSubjects, api_inbox, is_made_up
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["NatsTasks"]


class NatsTasks:
    """Meets ``TaskBackend`` on JetStream. It begins with its first use."""

    def __init__(
        self,
        connection: Connection,
        options: PoolOptions,
        name: str,
        owner: str,
        encoder: CallEncoder,
        transfer: Callable[[], Transfer],
    ) -> None:
        assert options.subject is not None
        self._connection = connection
        self._options = options
        self._name = name
        self._subjects = subjects = TaskSubjects(options.prefix, options.subject)
        self._js = js = JetStream(
            connection, api_inbox(options.prefix, f"{identity(options) or NONE}.{owner}")
        )
        self._clock = clock = ServerClock(js, subjects.tasks_stream)
        self._store = store = StateStore(js, subjects)
        self._outcomes = Outcomes(js, subjects, store, owner)
        self._shelf = shelf = Shelf(connection, subjects, options, transfer, owner)
        self._reading = Reading(store, self._outcomes, shelf, encoder.codecs)
        self._listening = Listening(connection, subjects, self._outcomes, shelf, encoder.codecs)
        wait = options.overload == "wait"
        backlog = Backlog(js, subjects.tasks_stream, options.max_queued, wait=wait, name=name)
        self._submitter = Submitter(js, subjects, store, self._outcomes, clock, encoder, backlog, shelf)
        self._lookup = Lookup(js, subjects, store, shelf, encoder.codecs)
        self._outcomes.exists = self._lookup.status
        self._recurring = Recurring(js, subjects, self._submitter)
        self._graves = Graves(js, subjects, owner, self._submitter, shelf)
        self._starting: asyncio.Task[None] | None = None
        self._ready = False
        self._watches: WeakSet[Watch] = WeakSet()

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Hear, and create the streams, unless that is done. Raises as ``require_streams``."""
        if self._ready:
            return
        if self._starting is None or (self._starting.done() and self._starting.exception() is not None):
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self._js.aclose()  # what an earlier attempt left
        await self._js.start()
        await require_streams(self._js, self._subjects, self._options)
        await self._outcomes.start()
        self._ready = True

    async def _there(self) -> bool:
        """Has the pool any streams? Who only looks creates none: a wrong subject would leave some behind."""
        if not self._ready:
            await self._js.start()
            if not await streams_exist(self._js, self._subjects):
                return False
            await self.start()
        return True

    async def _look_at(self, id: str) -> None:
        if not await self._there():
            raise TaskNotFoundError(
                f"No task {id!r}: nobody has used tasks of subject {self._options.subject!r} with prefix "
                f"{self._options.prefix!r} at {self._connection.shown} yet. Check all three.",
                task_id=id,
            )

    async def aclose(self) -> None:
        """Hear no more; the tasks live on."""
        if self._starting is None:
            await self._js.aclose()
            return
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await self._listening.aclose()
        await self._reading.aclose()
        await self._shelf.aclose()
        error = ExecutorClosedError(
            f"The executor '{self._name}' was shut down; its tasks live on.", executor=self._name
        )
        for watch in list(self._watches):
            watch.fail(error)
        await self._outcomes.aclose(error)
        await self._clock.aclose()
        await self._js.aclose()

    # -- storing --------------------------------------------------------------

    async def enqueue(self, request: TaskRequest) -> str:
        """See ``TaskBackend``."""
        await self.start()
        if request.call.on_progress is None:
            return await self._submitter.enqueue(request)
        end = await self._listening.begin(request.id, request.call.on_progress)
        stored = ""
        try:
            stored = await self._submitter.enqueue(request)
        finally:
            if stored != request.id:  # nobody will ever tell of this one
                await end()
        return stored

    async def enqueue_many(self, requests: Sequence[TaskRequest]) -> list[str | ExecutorError]:
        """See ``TaskBackend``."""
        await self.start()
        ends = {
            request.id: await self._listening.begin(request.id, request.call.on_progress)
            for request in requests
            if request.call.on_progress is not None
        }
        try:
            stored = await self._submitter.enqueue_many(requests)
            for id in stored:
                if isinstance(id, str):
                    ends.pop(id, None)
        finally:
            for end in ends.values():
                await end()
        return stored

    # -- one task -------------------------------------------------------------

    async def status(self, id: str) -> TaskStatus:
        """See ``TaskBackend``."""
        await self._look_at(id)
        return (await self._lookup.status(id))[0]

    async def result(self, id: str, timeout: float | None) -> Any:
        """See ``TaskBackend``."""
        await self._look_at(id)
        begun = asyncio.get_running_loop().time()
        stored = self._outcomes.known(id) or await self._settled(id, timeout)
        return await self._reading.give(id, stored, timeout, begun)

    async def _settled(self, id: str, timeout: float | None) -> Stored:
        try:
            told = await self._outcomes.told(id, timeout)
            if told is not None:
                return told
            async with asyncio.timeout(timeout):
                return await self._outcomes.wait(id, self._lookup.waiting)
        except TimeoutError:
            raise CallTimeoutError(
                f"Task {id} was not settled within {timeout:g} s; it lives on.", timeout=timeout, task_id=id
            ) from None

    async def cancel(self, id: str, timeout: float) -> bool:
        """See ``TaskBackend``."""
        await self._look_at(id)
        status, _ = await self._lookup.status(id)
        if status.settled:
            return status.state is TaskState.CANCELLED
        await self._lookup.require_verified(id)
        # Another task may come to have an id of somebody's own: this one is meant.
        which = b"" if is_made_up(id) else b"%.6f" % status.created_at
        await self._store.note("ask", "cancel", id, which, ttl=ASKED)
        try:
            stored = await self._settled(id, timeout)
        except CallTimeoutError:
            return False
        return stored.state is TaskState.CANCELLED

    async def watch(self, id: str) -> Watch:
        """See ``TaskBackend``."""
        await self._look_at(id)
        progress = self._subjects.about("note", "progress", id)
        watch = Watch(id, self._connection, progress, self._outcomes, self._lookup, self._shelf)
        await watch.start()
        self._watches.add(watch)
        return watch

    # -- many -----------------------------------------------------------------

    async def tasks(self, state: TaskState | None, limit: int) -> list[TaskStatus]:
        """See ``TaskBackend``."""
        if not await self._there():
            return []
        return await self._lookup.tasks(state, limit)

    async def schedule(self, name: str, spec: ScheduleSpec, request: TaskRequest) -> None:
        """See ``TaskBackend``."""
        await self.start()
        await self._recurring.store(name, spec, request)

    async def schedules(self) -> list[Schedule]:
        """See ``TaskBackend``."""
        if not await self._there():
            return []
        return await self._recurring.list()

    async def unschedule(self, name: str) -> bool:
        """See ``TaskBackend``."""
        return await self._there() and await self._recurring.remove(name)

    async def dead(self, limit: int) -> list[DeadLetter]:
        """See ``TaskBackend``."""
        if not await self._there():
            return []
        return await self._graves.list(limit)

    async def replay(self, id: str) -> str:
        """See ``TaskBackend``."""
        await self._look_at(id)
        return await self._graves.replay(id)

    async def drop(self, id: str) -> bool:
        """See ``TaskBackend``."""
        return await self._there() and await self._graves.drop(id)
