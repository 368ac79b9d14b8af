"""Stored payloads that nobody refers to: dropped after use, and looked for after crashes.

A payload's head names the subjects that may refer to it. What is stored on one of them and
holds the payload's number needs it; when there is nothing such, nobody does. That one rule covers
tasks, runs of a schedule that share their arguments, dead letters and replays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from genro_nats.codec.blob import BlobId
from genro_nats.errors import ExecutorError
from genro_nats.tasks.shelf import Shelf
from genro_nats.transport.blobs import Blobs, Head, read_head
from genro_nats.transport.direct import scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.subjects import TaskSubjects
from genro_nats.transport.times import from_rfc3339

__all__ = ["Sweeper", "release"]

log: Final = logging.getLogger("genro_nats.tasks")

_PAGE: Final = 1000  # heads in one look
_REFERRING: Final = 10_000  # messages of one subject that are looked at: runs of a schedule
_LOOKS: Final = 4  # per orphan_ttl


async def release(js: JetStream, blobs: Blobs, subjects: TaskSubjects, id: BlobId) -> bool:
    """Drop a payload unless something refers to it; was it dropped? Needs the right to purge."""
    head = await blobs.head(id)
    if head is None or await _is_needed(js, subjects, head):
        return False
    await blobs.drop(id)
    return True


async def _is_needed(js: JetStream, subjects: TaskSubjects, head: Head) -> bool:
    for owner in dict.fromkeys(head.owners):
        found = await scan(js, subjects.stream_of(owner), owner, limit=_REFERRING)
        if any(message.flaw is not None or head.id.number in message.data for message in found):
            return True  # what is refused here may be good to others
    return False


class Sweeper:
    """Looks for orphans now and then, as long as a worker serves. ``now()``: server time."""

    def __init__(
        self, js: JetStream, subjects: TaskSubjects, shelf: Shelf, orphan_ttl: float, now: Callable[[], float]
    ) -> None:
        self._js = js
        self._subjects = subjects
        self._blobs = shelf.blobs
        self._orphan_ttl = orphan_ttl
        self._now = now
        self._sweeping: asyncio.Task[None] | None = None
        self._suspects: set[BlobId] = set()  # needed by nobody when it was looked last

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep())

    async def aclose(self) -> None:
        """End. Can be repeated."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])

    async def _sweep(self) -> None:
        pause = self._orphan_ttl / _LOOKS
        while True:
            try:
                await self.look()
            except ExecutorError as error:
                log.warning("stored payloads could not be looked through: %s", error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # several workers look at different times

    async def look(self) -> int:
        """Drop what is old enough and needed by nobody, now and the last time; how many that were.

        Once is not enough: a replica that is behind may not yet have what refers to it.
        """
        dropped, seq, stream = 0, 1, self._subjects.blobs_stream
        suspects, self._suspects = self._suspects, set()
        while True:
            found = await scan(
                self._js, stream, self._subjects.of("blob", "*", "*", "head"), start_seq=seq, limit=_PAGE
            )
            for message in found:
                head = read_head(message)
                if head is None or self._now() - from_rfc3339(head.time) < self._orphan_ttl:
                    continue
                if await _is_needed(self._js, self._subjects, head):
                    continue
                if head.id in suspects:
                    await self._blobs.drop(head.id)
                    dropped += 1
                else:
                    self._suspects.add(head.id)
            if len(found) < _PAGE:
                return dropped
            seq = found[-1].seq + 1
