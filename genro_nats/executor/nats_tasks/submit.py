"""Storing tasks: where a task waits, what guards it from being stored twice, how many may wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Final

from genro_nats.codec.blob import Blob
from genro_nats.codec.frame import Flag, Frame, chunks, size
from genro_nats.codec.functions import label
from genro_nats.errors import (
    ConnectionLostError,
    ExecutorError,
    ExecutorOverloadError,
    SequenceConflictError,
    StreamUnavailableError,
    TaskError,
)
from genro_nats.executor.nats_tasks.outcomes import Outcomes
from genro_nats.executor.wire import CallEncoder
from genro_nats.tasks.message import meta_of
from genro_nats.tasks.request import TaskRequest, call_id
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.store import StateStore
from genro_nats.tasks.streams import LEVELS
from genro_nats.transport.apart import press_apart
from genro_nats.transport.backoff import backoff
from genro_nats.transport.clock import ServerClock
from genro_nats.transport.direct import StoredMessage, get_last
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import Publication, Publisher
from genro_nats.transport.schedules import at_headers, fired_by, require_delays
from genro_nats.transport.streams import consumer_state
from genro_nats.transport.subjects import TaskSubjects, from_token, is_schedule, token
from genro_nats.transport.times import from_rfc3339

__all__ = ["Backlog", "Submitter", "run_id"]

_ATTEMPTS: Final = 80  # with the pauses below they outlast a lease of ten seconds
_PAUSE_FOR_KEY: Final = (0.002, 0.25)  # seconds, first and last
_TOGETHER: Final = 64  # tasks admitted after one look at the backlog: so far may each caller overshoot
_PAUSE: Final = (0.05, 1.0)  # seconds between two looks at a full pool, first and longest

_Prepared = tuple[Publication, Blob | None] | ExecutorError


class Backlog:
    """Admits tasks as long as fewer than ``max_queued`` wait."""

    def __init__(self, js: JetStream, stream: str, limit: int | None, *, wait: bool, name: str) -> None:
        self._js = js
        self._stream = stream
        self._limit = limit
        self._wait = wait
        self._name = name
        self._admitted = 0
        self._on_way = 0  # admitted, and perhaps not stored yet
        self._looking = asyncio.Lock()

    @property
    def limited(self) -> bool:
        """May it be full?"""
        return self._limit is not None

    async def admit(self, most: int = 1) -> int:
        """Room for some more, at most so many; each is to be ``landed``.

        Raises ExecutorOverloadError, if the pool does not wait.
        """
        if self._limit is None:
            return most
        async with self._looking:
            await self._look(self._limit)
            taken = min(most, self._admitted)
            self._admitted -= taken
            self._on_way += taken
        return taken

    def landed(self, count: int = 1) -> None:
        """So many that were admitted are stored, or never will be."""
        self._on_way -= count

    async def _look(self, limit: int) -> None:
        """See to it that at least one may come."""
        pause, longest = _PAUSE
        while self._admitted <= 0:
            waiting = await self._waiting() + self._on_way
            self._admitted = min(_TOGETHER, limit - waiting)
            if self._admitted > 0:
                break
            if not self._wait:
                raise ExecutorOverloadError(
                    f"Pool '{self._name}' has {waiting:,} tasks waiting; max_queued is {limit:,}. "
                    "Try again later, start more workers, or raise max_queued.",
                    executor=self._name,
                    max_queued=limit,
                    retry_after=longest,
                )
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _waiting(self) -> int:
        states = await asyncio.gather(*(consumer_state(self._js, self._stream, level) for level in LEVELS))
        return sum(state.pending for state in states)


class Submitter:
    """Stores tasks in the stream of one pool."""

    def __init__(
        self,
        js: JetStream,
        subjects: TaskSubjects,
        store: StateStore,
        outcomes: Outcomes,
        clock: ServerClock,
        encoder: CallEncoder,
        backlog: Backlog,
        shelf: Shelf,
    ) -> None:
        self._js = js
        self._subjects = subjects
        self._store = store
        self._outcomes = outcomes
        self._clock = clock
        self._encoder = encoder
        self._backlog = backlog
        self._shelf = shelf
        self._publisher = Publisher(js, subjects.tasks_stream)
        self._clock_starting: asyncio.Future[None] | None = None

    async def enqueue(self, request: TaskRequest) -> str:
        """Store one; the id of it, or of the one that is there."""
        if request.options.id is not None and await self._is_kept(request.id):
            return request.id
        if self._backlog.limited and (existing := await self._key_holder(request)) is not None:
            return existing
        await self._backlog.admit()
        try:
            return await self._enqueue(request)
        finally:
            self._backlog.landed()

    async def _is_kept(self, id: str) -> bool:
        """Is a task with this id running, or its outcome kept? One that was read here goes, and is waited for.

        Raises TaskError when no worker deletes it.
        """
        for attempt in range(_ATTEMPTS):
            stored = await self._store.load(id)
            if stored is None or not self._outcomes.was_read(id, stored):
                return stored is not None
            await asyncio.sleep(backoff(attempt, *_PAUSE_FOR_KEY))
        raise TaskError(
            f"The outcome of an earlier task {id!r} was read, and no worker has deleted it yet (keep_result): "
            "try again.",
            task_id=id,
        )

    async def _key_holder(self, request: TaskRequest) -> str | None:
        if request.options.key is None:
            return None
        return await self._holder(self._subjects.of("task", "*", "*", token(request.options.key), "*"))

    async def _enqueue(self, request: TaskRequest) -> str:
        publication, blob = await self._publication(request)
        self._outcomes.expect(request.id)
        existing: str | None = request.id
        try:
            existing = await self.store_once(publication, request)
        except BaseException as error:
            self._outcomes.unexpect(request.id)
            self.refused(blob, error)
            raise
        if existing is not None:
            self._outcomes.unexpect(request.id)
            self.refused(blob)
        return existing or request.id

    def refused(self, blob: Blob | None, error: BaseException | None = None) -> None:
        """A task was not stored: nobody will want its arguments. Where that is not sure, they are left."""
        uncertain = isinstance(error, StreamUnavailableError | ConnectionLostError)
        if blob is not None and (error is None or (isinstance(error, ExecutorError) and not uncertain)):
            self._shelf.blobs.erase(blob)

    async def store_once(self, publication: Publication, request: TaskRequest | None = None) -> str | None:
        """Store it, unless its key or id is taken: then the id of the task that has it.

        ``request``: where the id may be a caller's own, which the server may remember of an earlier task.
        Raises TaskError when a settled task does not let go of the key.
        """
        for attempt in range(_ATTEMPTS):
            try:
                ack = await self._publisher.publish_one(publication)
                if ack.duplicate and request is not None and not await self._is_there(request):
                    # One with this id was settled and forgotten, and the server still remembers the id.
                    await self._publisher.publish_one(replace(publication, msg_id=""))
                return None
            except SequenceConflictError:
                existing = await self._holder(publication.expected_subject)
            if existing is not None:
                return existing
            # Settled, and not yet off the queue: a moment, or a lease if its worker died in that moment.
            await asyncio.sleep(backoff(attempt, *_PAUSE_FOR_KEY))
        raise TaskError(f"{publication.expected_subject} is held by a settled task: try again.")

    async def _is_there(self, request: TaskRequest) -> bool:
        """Is the task known, one way or another? Others than those with an id of somebody's own always are."""
        if request.options.id is None or await self._store.load(request.id) is not None:
            return True
        where = self._subjects.of("task", "*", "*", "*", token(request.id))
        if await get_last(self._js, self._subjects.tasks_stream, where) is not None:
            return True
        return await self._store.load(request.id) is not None  # it may have ended between the two looks

    async def enqueue_many(self, requests: Sequence[TaskRequest]) -> list[str | ExecutorError]:
        """Store many, pipelined; those that have to be looked at one by one are stored so."""
        if any(request.options.key or request.options.id for request in requests):
            return [await self._caught(request) for request in requests]
        outcomes: list[str | ExecutorError] = []
        while left := len(requests) - len(outcomes):
            try:
                room = await self._backlog.admit(left)
            except ExecutorError as error:
                return [*outcomes, *[error] * left]
            try:
                outcomes += await self._together(requests[len(outcomes) : len(outcomes) + room])
            finally:
                self._backlog.landed(room)
        return outcomes

    async def _together(self, requests: Sequence[TaskRequest]) -> list[str | ExecutorError]:
        prepared = await self._all_prepared(requests)
        good = [one[0] for one in prepared if not isinstance(one, ExecutorError)]
        acks = iter([outcome async for outcome in self._stored(good)])
        outcomes: list[str | ExecutorError] = []
        for request, one in zip(requests, prepared, strict=True):
            outcome = one if isinstance(one, ExecutorError) else next(acks)
            if isinstance(outcome, ExecutorError):
                self._outcomes.unexpect(request.id)
                self.refused(None if isinstance(one, ExecutorError) else one[1], outcome)
            outcomes.append(outcome if isinstance(outcome, ExecutorError) else request.id)
        return outcomes

    async def _all_prepared(self, requests: Sequence[TaskRequest]) -> list[_Prepared]:
        prepared: list[_Prepared] = []
        try:
            for request in requests:
                prepared.append(await self._prepared(request))
        except BaseException:  # cancelled, say: none of them is published
            for request, one in zip(requests, prepared, strict=False):
                self._outcomes.unexpect(request.id)
                self.refused(None if isinstance(one, ExecutorError) else one[1])
            raise
        return prepared

    async def _stored(self, publications: Iterable[Publication]) -> AsyncIterator[object]:
        async with aclosing(self._publisher.publish_many(publications)) as acks:  # type: ignore[type-var]
            async for ack in acks:
                yield ack

    async def _caught(self, request: TaskRequest) -> str | ExecutorError:
        try:
            return await self.enqueue(request)
        except ExecutorError as error:
            return error

    async def _prepared(self, request: TaskRequest) -> _Prepared:
        try:
            prepared = await self._publication(request)
        except ExecutorError as error:
            return error
        self._outcomes.expect(request.id)
        return prepared

    async def _publication(self, request: TaskRequest) -> tuple[Publication, Blob | None]:
        options, subjects = request.options, self._subjects
        now_subject = subjects.task(options.priority, options.key, request.id)
        waits = options.delay is not None or options.at is not None
        due = await self._due(request) if waits else None
        headers = None
        if due is not None:
            headers = at_headers(due, now_subject)
        later_subject = subjects.task(options.priority, options.key, request.id, later=True)
        # In the order in which it moves on: who looks through them can't miss it on its way.
        owners = [later_subject, now_subject, subjects.of("dead", token(request.id))]
        data, blob = await self.message(request, owners, self._clock.now() if due is not None else None)
        guard = ""
        if options.key is not None:
            guard = subjects.of("task", "*", "*", token(options.key), "*")
        elif options.id is not None:
            guard = subjects.of("task", "*", "*", "*", token(options.id))
        publication = Publication(
            now_subject if due is None else later_subject,
            data,
            headers,
            token(request.id),  # a header would lose spaces at its ends
            0 if guard else None,
            guard,
        )
        return publication, blob

    async def _due(self, request: TaskRequest) -> float | None:
        """When it is due, in the server's time; None: now."""
        options = request.options
        require_delays(self._js)
        await self._clock_runs()
        now = self._clock.now()
        due = options.due_at if options.delay is None else now + options.delay
        return due if due is not None and due > now else None

    async def _clock_runs(self) -> None:
        if self._clock_starting is None or (self._clock_starting.done() and self._clock_starting.exception()):
            self._clock_starting = asyncio.ensure_future(self._clock.start())
        await asyncio.shield(self._clock_starting)

    async def message(
        self, request: TaskRequest, owners: Sequence[str], created_at: float | None = None
    ) -> tuple[bytes, Blob | None]:
        """The task's message, and what was stored of it apart. ``owners``: where it, or its dead letter, will be.

        Raises CodecError, and as ``Shelf.put``.
        """
        frame = await press_apart(self._frame(request, created_at), self._encoder.compression)
        parts = chunks(frame)
        length = sum(map(size, parts))
        if self._shelf.fits(length):
            return b"".join(parts), None
        self._shelf.check(length, f"A call of {request.name}")
        return await self._shelf.put(frame, self._shelf.user, owners)

    def _frame(self, request: TaskRequest, created_at: float | None) -> Frame:
        call = request.call
        seconds = inf if call.timeout is None else call.timeout
        frame = self._encoder.frame(call, seconds, Flag.TASK | Flag.PROGRESS)
        frame.id = call_id(request.id)
        frame.name = request.name.encode()
        at = label(call.function)
        frame.meta = meta_of(request.id, at, call.trace_id, request.options, created_at, name=request.name)
        return frame

    async def _holder(self, subject: str) -> str | None:
        """The id of the task there that is not settled."""
        found = await get_last(self._js, self._subjects.tasks_stream, subject)
        if found is None:
            return None
        id = run_id(found)
        stored = await self._store.load(id)
        return None if stored is not None and stored.settled else id


def run_id(found: StoredMessage) -> str:
    """The id of the task that a stored message is; a schedule's runs have the time in theirs."""
    id = from_token(found.subject.rpartition(".")[2])
    if not is_schedule(fired_by(found.headers)):
        return id
    return f"{id}.{datetime.fromtimestamp(from_rfc3339(found.time), UTC):%Y%m%dT%H%M%SZ}"
