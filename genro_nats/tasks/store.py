"""Reading and writing the stored states of a pool's tasks."""

from __future__ import annotations

import asyncio
from typing import Final

from genro_nats.codec.frame import Buffer
from genro_nats.tasks.record import Record, Stored, pack
from genro_nats.transport.direct import get_last, purge_subject
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Message, When, header_block
from genro_nats.transport.publisher import Publication, Publisher
from genro_nats.transport.subjects import TaskSubjects

__all__ = ["StateStore"]

_TIMEOUT: Final = 3.0  # seconds for one attempt
_BLOCKS: Final = 64  # times to live whose headers are remembered


class StateStore:
    """The states stream. Writers name the sequence that they know, and lose if it is not the last one."""

    def __init__(self, js: JetStream, subjects: TaskSubjects) -> None:
        self._js = js
        self._subjects = subjects
        self._publisher = Publisher(js, subjects.states_stream)
        self._blocks: dict[float, bytes] = {}

    async def load(self, id: str) -> Stored | None:
        """What is stored of a task. Raises DecodeError, SignatureError, TransportError."""
        found = await get_last(self._js, self._subjects.states_stream, self._subjects.state(id))
        if found is None:
            return None
        if found.flaw is not None:
            raise found.flaw.error(f"What is stored of task {id} was refused", seq=found.seq)
        return Stored(found.data, found.seq)

    async def save(
        self, id: str, record: Record, outcome: Buffer = b"", *, expected: int, ttl: float | None = None
    ) -> int:
        """Store a state over the one with the sequence ``expected`` (0: none); its own sequence.

        Raises:
            SequenceConflictError: somebody else stored one meanwhile.
            PayloadTooLargeError: more than the server takes.
            StreamError: the stream refused it: it is full, say.
            TransportError: unknown whether it was stored; to repeat the same is safe.
        """
        ack = await self._publisher.publish(
            self._subjects.state(id),
            pack(record, outcome),
            msg_id=None,
            expected_last_subject_sequence=expected,
            ttl=ttl,
        )
        return ack.seq

    def post(self, id: str, data: bytes, ttl: float, when: When) -> asyncio.Future[Message] | None:
        """Begin to store a packed state that is the first of its task; None: ``save_packed`` has to.

        ``when``: as ``Connection.post``. Raises ConnectionLostError.
        """
        block = self._blocks.get(ttl)
        if block is None:
            first = Publication("", msg_id=None, expected_last_subject_sequence=0, ttl=ttl)
            block = header_block(first.all_headers())
            if len(self._blocks) < _BLOCKS:
                self._blocks[ttl] = block
        subject = self._subjects.state(id)
        request = self._js.requester.post(subject, data, block, _TIMEOUT, when)
        return None if request is None else request.reply

    async def save_packed(self, id: str, data: bytes, ttl: float) -> None:
        """Store a packed state that is the first of its task, as ``save``; to repeat ``post`` is safe."""
        await self._publisher.publish(
            self._subjects.state(id), data, msg_id=None, expected_last_subject_sequence=0, ttl=ttl
        )

    async def note(
        self,
        room: str,
        what: str,
        id: str,
        data: Buffer = b"",
        ttl: float | None = None,
        expected: int | None = None,
    ) -> int:
        """Store something beside the state: a request, progress, a checkpoint, an entry of a list; its sequence.

        ``expected``: as of ``save``.
        """
        subject = self._subjects.about(room, what, id)
        ack = await self._publisher.publish(
            subject, data, msg_id=None, ttl=ttl, expected_last_subject_sequence=expected
        )
        return ack.seq

    def where(self, what: str, id: str) -> str:
        """Where a note is kept."""
        return self._subjects.about("note", what, id)

    async def noted(self, room: str, what: str, id: str) -> bytes | None:
        """What ``note`` stored last."""
        subject = self._subjects.about(room, what, id)
        found = await get_last(self._js, self._subjects.states_stream, subject)
        return None if found is None or found.flaw else found.data

    async def unnote(self, what: str, id: str) -> None:
        """Drop what was noted as "progress" or "checkpoint"; workers may, callers have no right to."""
        await purge_subject(self._js, self._subjects.states_stream, self._subjects.about("note", what, id))

    async def checkpoint(self, id: str) -> tuple[bytes | None, int]:
        """A task's last checkpoint and its sequence; None and 0: there is none."""
        subject = self._subjects.about("note", "checkpoint", id)
        found = await get_last(self._js, self._subjects.states_stream, subject)
        if found is None:
            return None, 0
        # One that must not be believed is none, but the next one comes after it.
        return (None if found.flaw else found.data), found.seq
