"""The statuses of one task as the server and its worker tell them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from genro_nats.errors import ExecutorError
from genro_nats.executor.nats_tasks.lookup import Lookup
from genro_nats.executor.nats_tasks.outcomes import Outcomes
from genro_nats.executor.nats_tasks.progress import ProgressFeed
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.record import Stored
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.status import TaskState, TaskStatus
from genro_nats.transport.nats import Connection, Message, Subscription

__all__ = ["Watch"]

_WAITING = 1000  # statuses nobody has taken yet; of more, the oldest go: only the last one matters
_STORED = 0.3  # seconds after which what was told is stored too


class Watch:
    """Hears first, reads the present status then, so that nothing falls between."""

    def __init__(
        self,
        id: str,
        connection: Connection,
        subject: str,
        outcomes: Outcomes,
        lookup: Lookup,
        shelf: Shelf,
    ) -> None:
        self._id = id
        self._connection = connection
        self._subject = subject
        self._outcomes = outcomes
        self._lookup = lookup
        self._feed = ProgressFeed(shelf, lookup.codecs, self._progressed)
        self._queue: asyncio.Queue[TaskStatus | ExecutorError] = asyncio.Queue()
        self._last: TaskStatus | None = None
        self._seq = 0
        self._early: ProgressUpdate | None = None
        self._progress: Subscription | None = None
        self._second: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin. Raises TaskNotFoundError, PermissionDeniedError."""
        await self._outcomes.listen(self._id, self._told, self.fail)
        self._progress = await self._connection.subscribe(self._subject, self._heard)
        try:
            status, seq = await self._lookup.status(self._id)
            self._connection.denials.require(self._subject)
            self._outcomes.require(self._id)
        except BaseException:
            await self.aclose()
            raise
        if seq >= self._seq:
            self._seq = seq
            running = status.state is TaskState.RUNNING
            self._put(replace(status, progress=self._early) if running and self._early else status)
            if running and status.progress is None:
                self._second = asyncio.ensure_future(self._look_again())

    async def _look_again(self) -> None:
        """Progress that was told before we heard, and stored after we looked: subscribers are told first."""
        await asyncio.sleep(_STORED)
        with contextlib.suppress(ExecutorError):
            update = await self._lookup.progress(self._id)
            if update is not None and self._last is not None and self._last.progress is None:
                self._progressed(update)

    async def receive(self) -> TaskStatus:
        """The next status. Raises StopAsyncIteration after a settled one, and what ``fail`` was given."""
        if self._last is not None and self._last.settled and self._queue.empty():
            raise StopAsyncIteration
        found = await self._queue.get()
        if isinstance(found, ExecutorError):
            self._queue.put_nowait(found)  # whoever asks again hears the same
            raise found
        return found

    def fail(self, error: ExecutorError) -> None:
        """Nothing will be heard any more."""
        self._queue.put_nowait(error)

    async def aclose(self) -> None:
        """Hear no more. Can be repeated."""
        await self._outcomes.unlisten(self._id, self._told)
        self._feed.close()
        if self._second is not None:
            self._second.cancel()
        progress, self._progress = self._progress, None
        if progress is not None:
            await self._connection.unsubscribe(progress)

    def _told(self, stored: Stored) -> None:
        if stored.seq <= self._seq:
            return
        self._seq = stored.seq
        status = stored.record.status(self._id)
        last, progress = self._last, None
        if last is not None and last.attempts == status.attempts:
            progress = (
                last.progress
            )  # a running attempt may be told twice: when it began, when it was claimed
        if status.state is TaskState.RUNNING:
            progress, self._early = self._early or progress, None
        self._put(replace(status, progress=progress))

    def _heard(self, message: Message) -> None:
        self._feed.put(message.data)

    def _progressed(self, update: ProgressUpdate) -> None:
        last = self._last
        if last is not None and last.settled:
            return
        if last is not None and last.state is TaskState.RUNNING:
            self._put(replace(last, progress=update))
        else:
            self._early = update  # it was told sooner than that the attempt has begun

    def _put(self, status: TaskStatus) -> None:
        self._last = status
        if self._queue.qsize() >= _WAITING:
            self._queue.get_nowait()
        self._queue.put_nowait(status)
