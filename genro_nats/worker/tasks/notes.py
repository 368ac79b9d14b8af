"""What a running task notes: progress and checkpoints, stored one after the other; of checkpoints the newest.

A checkpoint names the one before it, so that an attempt which has lost its lease can't
undo what a newer one has kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from genro_nats.codec.blob import BlobId
from genro_nats.codec.frame import Buffer, Frame, FrameKind
from genro_nats.errors import ExecutorError, SequenceConflictError
from genro_nats.tasks.retry import MAX_DELAY
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.store import StateStore
from genro_nats.transport.subjects import user_of

__all__ = ["CHECKPOINT", "PROGRESS", "Notes"]

log: Final = logging.getLogger("genro_nats.worker")

PROGRESS: Final = "progress"
CHECKPOINT: Final = "checkpoint"
_CHECKPOINT_TTL: Final = 2 * MAX_DELAY  # seconds: any wait for the next attempt; it is dropped with the task
_WAITING: Final = 100  # notes; of more, while the stream is away, the oldest go


class Notes:
    """The notes of one attempt. ``seq``: of the last checkpoint known; ``mine``: is the task still held here?"""

    __slots__ = ("_blobs", "_id", "_mine", "_next", "_sending", "_seq", "_shelf", "_store", "_ttl")

    def __init__(
        self,
        store: StateStore,
        shelf: Shelf,
        id: str,
        ttl: float,
        seq: int,
        mine: Callable[[], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._blobs: dict[str, BlobId] = {}  # what was stored apart of the last note of each sort
        self._id = id
        self._ttl = ttl
        self._seq = seq
        self._mine = mine
        self._next: list[tuple[str, Buffer]] = []
        self._sending: asyncio.Task[None] | None = None

    def put(self, what: str, data: Buffer) -> None:
        """Store it soon; of checkpoints, only the newest."""
        if what == CHECKPOINT or not self._shelf.fits(len(data)):
            # Of large ones the newest too: there is no end to the memory that a hundred of them take.
            self._next = [note for note in self._next if note[0] != what]
        self._next.append((what, data))
        del self._next[:-_WAITING]
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def stored(self) -> None:
        """Wait until the last ones are stored, or were given up."""
        if self._sending is not None:
            await self._sending

    async def _send(self) -> None:
        try:
            while self._next:
                await self._store_one(*self._next.pop(0))
        except SequenceConflictError:
            log.debug("task %s is held elsewhere: its checkpoint here counts for nothing", self._id)
        except ExecutorError as error:
            log.warning("a note of task %s could not be stored: %s", self._id, error)
        finally:
            self._sending = None

    @property
    def stored_apart(self) -> list[BlobId]:
        """The ids of payloads that the last checkpoint left."""
        return [id for what, id in self._blobs.items() if what == CHECKPOINT]

    async def _store_one(self, what: str, data: Buffer) -> None:
        before = self._blobs.pop(what, None)
        if self._shelf.fits(len(data)):
            await self._note(what, bytes(data))
        else:
            await self._store_large(what, data)
        if before is not None:
            await self._shelf.blobs.drop(before)

    async def _store_large(self, what: str, data: Buffer) -> None:
        is_checkpoint = what == CHECKPOINT
        frame = Frame(FrameKind.CHECKPOINT, body=data) if is_checkpoint else data
        ttl = _CHECKPOINT_TTL if is_checkpoint else self._ttl
        where = self._store.where(what, self._id)
        note, blob = await self._shelf.put(frame, user_of(self._id), [where], ttl)
        try:
            await self._note(what, note)
        except SequenceConflictError:
            await self._shelf.blobs.drop(blob.id)
            raise
        self._blobs[what] = blob.id

    async def _note(self, what: str, data: Buffer) -> None:
        if what != CHECKPOINT:
            await self._store.note("note", what, self._id, data, ttl=self._ttl)
            return
        try:
            await self._keep(data)
        except SequenceConflictError:
            # Perhaps it is only what an earlier task of this id has left.
            if not await self._mine():
                raise
            self._seq = (await self._store.checkpoint(self._id))[1]
            await self._keep(data)

    async def _keep(self, data: Buffer) -> None:
        self._seq = await self._store.note(
            "note", CHECKPOINT, self._id, data, ttl=_CHECKPOINT_TTL, expected=self._seq
        )
