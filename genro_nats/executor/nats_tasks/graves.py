"""Dead letters, read and acted on by an operator."""

from __future__ import annotations

import json
import logging
from typing import Final

from genro_nats.codec.blob import BlobId, blob_in, is_referred
from genro_nats.codec.frame import Buffer, decode, encode
from genro_nats.codec.signing import Flaw
from genro_nats.errors import DecodeError, TaskError, TaskNotFoundError
from genro_nats.executor.nats_tasks.submit import Submitter
from genro_nats.message import new_id
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.letter import DISTRUSTED, unpack_letter
from genro_nats.tasks.orphans import release
from genro_nats.tasks.request import OWNER
from genro_nats.tasks.shelf import Shelf
from genro_nats.transport.direct import StoredMessage, get_last, purge_subject, scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import Publication
from genro_nats.transport.subjects import NONE, TaskSubjects, from_token, token

__all__ = ["Graves"]

log: Final = logging.getLogger("genro_nats.executor")


class Graves:
    """The dead letters of one pool."""

    def __init__(
        self, js: JetStream, subjects: TaskSubjects, owner: str, submitter: Submitter, shelf: Shelf
    ) -> None:
        self._js = js
        self._subjects = subjects
        self._owner = owner
        self._submitter = submitter
        self._shelf = shelf

    async def list(self, limit: int) -> list[DeadLetter]:
        """The oldest ones."""
        letters: list[DeadLetter] = []
        seq, where = 1, self._subjects.of("dead", "*")
        while len(letters) < limit:
            found = await scan(self._js, self._subjects.dead_stream, where, start_seq=seq, limit=limit)
            letters += filter(None, map(_readable, found))  # what is none must not hide the others
            if len(found) < limit:
                break
            seq = found[-1].seq + 1
        return letters[:limit]

    async def replay(self, id: str) -> str:
        """Enqueue its call as a new task; the letter is dropped once that is stored."""
        found = await self._find(id)
        if found is None:
            raise TaskNotFoundError(f"There is no dead letter {id!r}.", task_id=id)
        if found.flaw is not None:
            raise found.flaw.error(f"The dead letter {id!r}")
        letter, subject, data = unpack_letter(found.data)
        if not data:
            raise TaskError(
                f"The dead letter {id!r} holds no call that could be replayed: it was too large to be kept with its "
                "facts. Enqueue it anew.",
                task_id=id,
            )
        if letter.reason == DISTRUSTED:
            data = self._believed(id, subject, data)
        fresh = (self._owner + new_id().hex())[: 2 * OWNER]
        try:
            frame, _ = decode(data)
            meta = json.loads(frame.meta) if frame.meta else {}
        except (DecodeError, ValueError) as error:
            raise TaskError(
                f"The dead letter {id!r} holds no call that could be replayed: {error}", task_id=id
            ) from error
        frame.id = bytes.fromhex(fresh)
        frame.meta = json.dumps({**meta, "id": fresh}).encode()
        *_, level, key, _old = subject.split(".")
        where = self._subjects.of("task", "now", level, key, token(fresh))
        if is_referred(data):
            # Before anything refers to it there: what was stored is this task's too from now on.
            dead = self._subjects.of("dead", token(fresh))
            await self._shelf.blobs.own(blob_in(data)[1].id, [where, dead])
        guard = "" if key == NONE else self._subjects.of("task", "*", "*", key, "*")
        publication = Publication(
            where,
            encode(frame),
            msg_id=fresh,
            expected_last_subject_sequence=0 if guard else None,
            expected_subject=guard,
        )
        holder = await self._submitter.store_once(publication)
        if holder is not None:
            raise TaskError(
                f"The dead letter {id!r} has the key {from_token(key)!r}, which task {holder} has that waits "
                "or runs: replay it once that one is settled, or drop it.",
                task_id=id,
            )
        await self.drop(id)
        return fresh

    def _believed(self, id: str, subject: str, data: Buffer) -> Buffer:
        """A message that a worker refused, if the keys of this side, unlike its own, say that it is good."""
        opened = self._js.connection.guard.open_buried(subject, bytes(data))
        if isinstance(opened, Flaw):
            raise opened.error(f"The call in the dead letter {id!r}")
        return opened

    async def drop(self, id: str) -> bool:
        """Remove a letter; was it there?"""
        found = await self._find(id)
        dropped = await purge_subject(self._js, self._subjects.dead_stream, self._subject(id)) > 0
        if found is not None and (blob := _blob_of(found.data)) is not None:
            await release(self._js, self._shelf.blobs, self._subjects, blob)
        return dropped

    async def _find(self, id: str) -> StoredMessage | None:
        return await get_last(self._js, self._subjects.dead_stream, self._subject(id))

    def _subject(self, id: str) -> str:
        return self._subjects.of("dead", token(id))


def _readable(message: StoredMessage) -> DeadLetter | None:
    try:
        return None if message.flaw is not None else unpack_letter(message.data)[0]
    except DecodeError as error:
        log.warning("the dead letter on %s can't be read: %s", message.subject, error)
        return None


def _blob_of(letter: Buffer) -> BlobId | None:
    """The id of what was stored apart from a letter's call."""
    try:
        data = unpack_letter(letter)[2]
        return blob_in(data)[1].id if is_referred(data) else None
    except DecodeError:
        return None
