"""Dead letters: what failed for good and what could not be read, kept with its call."""

from __future__ import annotations

from genro_nats.codec.frame import Buffer
from genro_nats.errors import PayloadTooLargeError, StreamError
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.letter import DISTRUSTED, pack_letter
from genro_nats.tasks.message import TaskMessage
from genro_nats.tasks.record import Record
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.direct import purge_subject
from genro_nats.transport.jetstream import STORE_FAILED, JetStream
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.subjects import TaskSubjects, token

__all__ = ["Burial", "reason_of"]


class Burial:
    """Writes to the stream of dead letters."""

    def __init__(self, js: JetStream, subjects: TaskSubjects) -> None:
        self._js = js
        self._subjects = subjects
        self._publisher = Publisher(js, subjects.dead_stream)

    async def failed(self, task: TaskMessage, record: Record, delivery: Delivery) -> None:
        """Keep a task that failed for good. Doing it again changes nothing."""
        letter = DeadLetter(
            task.id,
            task.function,
            record.reason,
            record.error,
            record.attempts,
            record.deaths,
            record.finished_at or 0.0,
        )
        await self._store(letter, delivery.subject, delivery.data)

    async def undo(self, task: TaskMessage) -> None:
        """Drop the letter of a task that did not fail after all; mostly there is none."""
        await purge_subject(self._js, self._subjects.dead_stream, self._subjects.of("dead", token(task.id)))

    async def unreadable(self, delivery: Delivery, error: Exception, now: float) -> None:
        """Keep a message that is no task, or must not be believed, as it came, and take it off the queue."""
        info = delivery.info
        reason = reason_of(delivery)
        letter = DeadLetter(f"unreadable-{info.stream_seq}", "", reason, str(error), 0, 0, now)
        await self._store(letter, delivery.subject, delivery.raw)
        await delivery.term(reason)

    async def _store(self, letter: DeadLetter, subject: str, data: Buffer) -> None:
        where = self._subjects.of("dead", token(letter.id))
        try:
            await self._publisher.publish(where, pack_letter(letter, subject, data), msg_id=None)
        except (PayloadTooLargeError, StreamError) as error:
            if isinstance(error, StreamError) and error.code != STORE_FAILED:
                raise
            # The message took all that the server takes: better its facts alone than its coming for ever.
            await self._publisher.publish(where, pack_letter(letter, subject, b""), msg_id=None)


def reason_of(delivery: Delivery) -> str:
    """Why a message that can't be a task is buried."""
    return "unreadable" if delivery.flaw is None else DISTRUSTED
