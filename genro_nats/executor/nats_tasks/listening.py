"""Progress of an enqueued task for the listener given with ``on_progress``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from genro_nats.codec.codecs import Codecs
from genro_nats.executor.nats_tasks.outcomes import Outcomes
from genro_nats.executor.nats_tasks.progress import ProgressFeed
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.record import Stored
from genro_nats.tasks.shelf import Shelf
from genro_nats.transport.nats import Connection, Message, Subscription
from genro_nats.transport.subjects import TaskSubjects

__all__ = ["Listening"]


class Listening:
    """Subscriptions that end with their tasks."""

    def __init__(
        self,
        connection: Connection,
        subjects: TaskSubjects,
        outcomes: Outcomes,
        shelf: Shelf,
        codecs: Codecs,
    ) -> None:
        self._codecs = codecs
        self._connection = connection
        self._subjects = subjects
        self._outcomes = outcomes
        self._shelf = shelf
        self._ending: set[asyncio.Task[None]] = set()

    async def begin(
        self, id: str, listener: Callable[[ProgressUpdate], object]
    ) -> Callable[[], Awaitable[None]]:
        """Tell ``listener`` of each progress of a task, until it is settled, or what is returned is called."""
        feed = ProgressFeed(self._shelf, self._codecs, listener)

        def heard(message: Message) -> None:
            feed.put(message.data)

        subject = self._subjects.about("note", "progress", id)
        subscription = await self._connection.subscribe(subject, heard)

        def told(stored: Stored) -> None:
            if stored.settled:
                task = asyncio.ensure_future(self._end(id, subscription, told))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

        await self._outcomes.listen(id, told)
        return partial(self._end, id, subscription, told)

    async def _end(self, id: str, subscription: Subscription, told: Callable[[Stored], object]) -> None:
        await self._outcomes.unlisten(id, told)
        await self._connection.unsubscribe(subscription)

    async def aclose(self) -> None:
        """Wait for what is ending."""
        await asyncio.gather(*self._ending, return_exceptions=True)
