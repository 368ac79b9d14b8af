"""What is known of tasks: one by its id, or those of a state, without reading everything."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from genro_nats.codec.codecs import Codecs
from genro_nats.errors import DecodeError, TaskNotFoundError
from genro_nats.executor.nats_tasks.progress import read_progress
from genro_nats.executor.nats_tasks.submit import run_id
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.message import read_message
from genro_nats.tasks.record import Stored
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.status import TaskState, TaskStatus
from genro_nats.tasks.store import StateStore
from genro_nats.transport.direct import StoredMessage, get_last, multi_last, next_message, scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.subjects import TaskSubjects, from_token, is_later, token
from genro_nats.transport.times import from_rfc3339

__all__ = ["Lookup"]

_PAGE: Final = 200
_RUN: Final = re.compile(r"(.+)\.(\d{8}T\d{6}Z)")
_LISTED: Final = frozenset({TaskState.RUNNING, TaskState.FAILED, TaskState.CANCELLED})


class Lookup:
    """Reads states and queues."""

    def __init__(
        self, js: JetStream, subjects: TaskSubjects, store: StateStore, shelf: Shelf, codecs: Codecs
    ) -> None:
        self.codecs = codecs
        self._js = js
        self._subjects = subjects
        self._store = store
        self._shelf = shelf

    # -- one ------------------------------------------------------------------

    async def status(self, id: str) -> tuple[TaskStatus, int]:
        """What is known of it, and the sequence of its state (0: none is stored). Raises TaskNotFoundError."""
        stored = await self._store.load(id)
        if stored is None:
            try:
                return await self.waiting(id), 0
            except TaskNotFoundError:
                stored = await self._store.load(id)  # it may have ended between the two looks
                if stored is None:
                    raise
        status = stored.record.status(id)
        if stored.record.attempts:
            status = replace(status, progress=await self.progress(id))
        return status, stored.seq

    async def progress(self, id: str) -> ProgressUpdate | None:
        """The last progress that was stored."""
        found = await self._store.noted("note", "progress", id)
        return None if found is None else await read_progress(self._shelf, self.codecs, found)

    async def waiting(self, id: str) -> TaskStatus:
        """The status of a task that nobody has begun. Raises TaskNotFoundError."""
        found = await self.message(id)
        if found is None:
            raise TaskNotFoundError(
                f"No task {id!r} is known to this pool: it never was, or its outcome is older than its result_ttl.",
                task_id=id,
            )
        return _waiting_status(id, found)

    async def require_verified(self, id: str) -> None:
        """Raises SignatureError for a task that waits with another key: no worker would heed what we ask of it."""
        found = await self.message(id)
        if found is not None and found.flaw is not None:
            raise found.flaw.error(f"What waits of task {id} was refused", task_id=id)

    async def message(self, id: str) -> StoredMessage | None:
        """The message of a task that is not settled."""
        stream = self._subjects.tasks_stream
        found = await get_last(self._js, stream, self._subjects.of("task", "*", "*", "*", token(id)))
        run = _RUN.fullmatch(id) if found is None else None
        if run is None:
            return found
        where = self._subjects.of("task", "now", "*", "*", token(run[1]))
        begin = datetime.strptime(run[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        found = await next_message(self._js, stream, where, start_time=begin)
        return found if found is not None and run_id(found) == id else None

    # -- many -----------------------------------------------------------------

    async def tasks(self, state: TaskState | None, limit: int) -> list[TaskStatus]:
        """Tasks of a state, at most ``limit``; None: those that wait, then those that began."""
        found: dict[str, TaskStatus] = {}
        async with aclosing(self._candidates(state)) as candidates:  # type: ignore[type-var]
            async for status in candidates:
                if len(found) >= limit:
                    break
                if state is None or status.state is state:
                    found.setdefault(status.id, status)
        return list(found.values())

    async def _candidates(self, state: TaskState | None) -> AsyncIterator[TaskStatus]:
        if state is None or state is TaskState.SCHEDULED:
            async for status in self._queued("later"):
                yield status
        if state is None or state is TaskState.PENDING:
            async for status in self._queued("now"):
                yield status
        if state is not None and (state in _LISTED or state is TaskState.SCHEDULED):
            async for status in self._indexed(state):
                yield status
        if state is None or state is TaskState.COMPLETED:
            async for page in self._pages(self._subjects.states_stream, self._subjects.of("state", ">")):
                for status in filter(None, map(_recorded, page)):
                    yield status

    async def _queued(self, phase: str) -> AsyncIterator[TaskStatus]:
        """Tasks on the queue, with what is stored of those that began."""
        subject = self._subjects.of("task", phase, ">")
        async for page in self._pages(self._subjects.tasks_stream, subject):
            messages = {run_id(message): message for message in page}
            begun = await self._states(list(messages))
            for id, message in messages.items():
                yield begun.get(id) or _waiting_status(id, message)

    async def _indexed(self, state: TaskState) -> AsyncIterator[TaskStatus]:
        where = self._subjects.of("index", state, ">")
        async for page in self._pages(self._subjects.states_stream, where):
            ids = [from_token(message.subject.rpartition(".")[2]) for message in page]
            for status in (await self._states(ids)).values():
                yield status

    async def _states(self, ids: list[str]) -> dict[str, TaskStatus]:
        subjects = [self._subjects.state(id) for id in ids]
        found = await multi_last(self._js, self._subjects.states_stream, subjects)
        return {status.id: status for status in filter(None, map(_recorded, found.values()))}

    async def _pages(self, stream: str, subject: str) -> AsyncIterator[list[StoredMessage]]:
        seq = 1
        while True:
            page = await scan(self._js, stream, subject, start_seq=seq, limit=_PAGE)
            if page:
                yield page
            if len(page) < _PAGE:
                return
            seq = page[-1].seq + 1


def _recorded(message: StoredMessage) -> TaskStatus | None:
    try:
        record = Stored(message.data, message.seq).record
    except DecodeError:
        return None  # one that can't be read hides no other
    return record.status(from_token(message.subject.rpartition(".")[2]))


def _waiting_status(id: str, message: StoredMessage) -> TaskStatus:
    state = TaskState.SCHEDULED if is_later(message.subject) else TaskState.PENDING
    stored_at = from_rfc3339(message.time)
    try:
        created_at = read_message(message.data, message.subject).created_at
    except DecodeError:
        created_at = None  # its worker will say what is wrong with it
    return TaskStatus(id, state, stored_at if created_at is None else created_at)
