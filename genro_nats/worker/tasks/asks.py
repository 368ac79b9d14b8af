"""What is asked of the workers about tasks: to cancel one, to forget one's outcome. Requests are stored.

Every worker hears them, because any may hold the task; one that nobody holds is seen to by one of them
(a queue group picks it). What was asked while no worker was there is carried out at the start.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import inf, isfinite
from typing import Any, Final, NamedTuple

from genro_nats.codec.blob import blob_id, is_referred
from genro_nats.codec.codecs import Codecs
from genro_nats.errors import DecodeError, SequenceConflictError, SignatureError
from genro_nats.executor.nats_tasks.lookup import Lookup
from genro_nats.tasks.message import TaskMessage, read_message
from genro_nats.tasks.orphans import release
from genro_nats.tasks.record import Record
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.status import TaskState
from genro_nats.tasks.store import StateStore
from genro_nats.transport.backoff import backoff
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.direct import StoredMessage, get_last, purge_subject, scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Message, Subscription
from genro_nats.transport.schedules import fired_by
from genro_nats.transport.subjects import QUEUE_GROUP, TaskSubjects, from_token, is_later, is_schedule
from genro_nats.transport.times import from_rfc3339
from genro_nats.worker.tasks.held import HeldTask

__all__ = ["Asks"]

log: Final = logging.getLogger("genro_nats.worker")

_REMEMBERED: Final = 100_000  # ids of cancelled tasks
_ATTEMPTS: Final = 20
_PAUSE: Final = (0.05, 1.0)  # seconds between two looks whether an acknowledgement has come through
_LATE: Final = 5.0  # seconds
_AT_START: Final = 10_000  # requests carried out at the start
_CLOCKS: Final = 1.0  # seconds by which clocks may differ: a task younger than its cancelling is another one
_SAME: Final = 0.001  # seconds by which two statements of when a task was created may differ
_ASKS: Final = 4  # remembered for an id: tasks that had it one after the other


class _Cancelling(NamedTuple):
    """When it was asked for, and when the task that is meant was created, if that was said (else None)."""

    asked_at: float
    created_at: float | None

    def is_for(self, created_at: float | None) -> bool:
        """Is a task created then meant, rather than a later one with the same id? None: unknown, so it may be."""
        return None in (created_at, self.created_at) or created_at <= self.created_at + _SAME  # type: ignore[operator]


class Asks:
    """Hears requests and carries them out. ``held`` gives a task that this worker holds."""

    def __init__(
        self,
        js: JetStream,
        subjects: TaskSubjects,
        store: StateStore,
        shelf: Shelf,
        held: Callable[[str], HeldTask | None],
        now: Callable[[], float],
        lease: float,
    ) -> None:
        self._js = js
        self._subjects = subjects
        self._store = store
        self._shelf = shelf
        codecs = Codecs(only_data=True, whose="a worker")
        self._lookup = Lookup(js, subjects, store, shelf, codecs)
        self._held = held
        self._now = now
        self._lease = lease
        self._doing: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._cancelled: OrderedDict[str, tuple[_Cancelling, ...]] = OrderedDict()  # by id
        self._listening = False

    async def start(self) -> None:
        """Hear requests from now on, and carry out those that are stored."""
        connection = self._js.connection
        everything = self._subjects.of("ask", ">")
        self._subscriptions = [
            await connection.subscribe(everything, self._heard),
            await connection.subscribe(everything, self._chosen, QUEUE_GROUP),
        ]
        connection.on_up.append(self._came_back)
        self._listening = True
        await self._catch_up()

    async def aclose(self) -> None:
        """Hear no more. Can be repeated."""
        if self._listening:
            self._listening = False
            self._js.connection.on_up.remove(self._came_back)
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await self._js.connection.unsubscribe(subscription)
        for task in list(self._doing):
            task.cancel()
        await asyncio.gather(*self._doing, return_exceptions=True)

    async def done(self, verb: str, id: str) -> None:
        """It has been carried out."""
        await purge_subject(self._js, self._subjects.states_stream, self._subjects.about("ask", verb, id))

    def _came_back(self) -> None:
        self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """Requests that came while nobody heard."""
        stored = await scan(
            self._js, self._subjects.states_stream, self._subjects.of("ask", ">"), limit=_AT_START
        )
        stored = [message for message in stored if message.flaw is None]
        asked = [self._read(message.subject) for message in stored]
        for (verb, id), message in zip(asked, stored, strict=True):
            if verb == "cancel":
                self._cancel_here(id, _Cancelling(from_rfc3339(message.time), _number(message.data)))
        for (verb, id), message in zip(asked, stored, strict=True):
            if verb == "cancel":
                await self._carry_out(verb, id, message.data)
            else:  # it may have to wait until somebody takes tasks
                self._spawn(self._carry_out(verb, id, message.data))

    # -- hearing ------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        verb, id = self._read(message.subject)
        if verb == "cancel":
            self._cancel_here(id, _Cancelling(self._now(), _number(message.data)))

    def _chosen(self, message: Message) -> None:
        self._spawn(self._carry_out(*self._read(message.subject), message.data))

    @staticmethod
    def _read(subject: str) -> tuple[str, str]:
        *_, verb, _user, _owner, id = subject.split(".")
        return verb, from_token(id)

    def is_cancelled(self, task: TaskMessage, delivery: Delivery) -> bool:
        """Was its cancelling asked for? What was asked of an earlier task with its id is not meant for it."""
        asked = self._cancelled.get(task.id)
        if asked is None:
            return False
        created_at = task.created_at or delivery.info.stored_at
        told = _created_at(task, delivery.headers, delivery.info.stored_at)
        return any(one.is_for(told) and created_at <= one.asked_at + _CLOCKS for one in asked)

    def _cancel_here(self, id: str, asked: _Cancelling) -> None:
        others = [one for one in self._cancelled.get(id, ()) if one.created_at != asked.created_at]
        # Requests may be heard late and twice: one for an earlier task must not hide that for a later one.
        self._cancelled[id] = (*others[1 - _ASKS :], asked)
        self._cancelled.move_to_end(id)
        if len(self._cancelled) > _REMEMBERED:
            self._cancelled.popitem(last=False)
        held = self._held(id)
        if held is not None and asked.is_for(
            _created_at(held.task, held.delivery.headers, held.delivery.info.stored_at)
        ):
            held.cancel()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._doing.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._doing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a request about a task could not be carried out: %s", error)

    # -- carrying out ---------------------------------------------------------------

    async def _carry_out(self, verb: str, id: str, data: bytes) -> None:
        try:
            if verb == "cancel":
                await self._cancel_waiting(id, _Cancelling(inf, _number(data)))
            elif verb == "forget":
                await self._forget(id)
        except SequenceConflictError:
            log.debug("task %s moved on while it was asked to %s", id, verb)
        except (DecodeError, SignatureError) as error:
            # Who is given its message settles it.
            log.warning("task %s was asked to %s: %s", id, verb, error)

    async def _cancel_waiting(self, id: str, asked: _Cancelling) -> None:
        """Settle a task that nobody runs. One that runs is ended by who holds it."""
        for _ in range(_ATTEMPTS):
            stored = await self._store.load(id)
            if stored is not None and stored.settled:
                break
            if stored is not None and stored.record.state is TaskState.RUNNING:
                return
            waiting = await self._lookup.message(id)
            if waiting is None:
                break  # it was never there, or has just ended
            task = read_message(waiting.data, waiting.subject)
            if not asked.is_for(_created_at(task, waiting.headers, from_rfc3339(waiting.time))):
                return  # a later one with this id; what is asked of that may stand in the place of this
            try:
                await self._settle_cancelled(
                    id, task, waiting, stored.record if stored else None, stored.seq if stored else 0
                )
            except SequenceConflictError:
                continue
            await self._remove(waiting)
            if is_referred(waiting.data):
                await release(self._js, self._shelf.blobs, self._subjects, blob_id(waiting.data))
            break
        await self.done("cancel", id)

    async def _settle_cancelled(
        self, id: str, task: TaskMessage, waiting: StoredMessage, record: Record | None, seq: int
    ) -> None:
        created = task.created_at or from_rfc3339(waiting.time)
        base = record or Record(TaskState.PENDING, created, function=task.function, keep=task.keep)
        settled = base.to(
            TaskState.CANCELLED,
            finished_at=self._now(),
            reason="cancelled",
            error="cancelled",
            next_retry_at=None,
            task=waiting.subject,
        )
        await self._store.save(id, settled, expected=seq, ttl=task.ttl)
        await self._store.note("index", TaskState.CANCELLED, id, ttl=task.ttl)
        if settled.attempts:
            await self._store.unnote("checkpoint", id)

    async def _remove(self, waiting: StoredMessage) -> None:
        """Take a task off the queue, and off the list of those that are due later."""
        stream, subject = self._subjects.tasks_stream, waiting.subject
        if is_schedule(fired_by(waiting.headers)):  # other runs have the same subject
            await self._js.api(f"STREAM.MSG.DELETE.{stream}", {"seq": waiting.seq})
            return
        await purge_subject(self._js, stream, subject)
        if is_later(subject):
            tokens = subject.split(".")
            await purge_subject(self._js, stream, ".".join([*tokens[:-4], "now", *tokens[-3:]]))

    async def _forget(self, id: str) -> None:
        """Delete an outcome that was read, once the task is off the queue for certain: else it would run again."""
        deadline = self._now() + 2 * self._lease + _LATE  # an ack that was lost is made good within a lease
        for attempt in itertools.count():
            if self._now() > deadline:
                return  # it stays asked for: who starts next tries again
            stored = await self._store.load(id)
            if stored is None or not stored.settled:
                break
            stream, subject = self._subjects.tasks_stream, stored.record.task
            if not subject or await get_last(self._js, stream, subject) is None:
                await self._delete(id)
                if is_referred(stored.outcome):
                    await self._shelf.blobs.drop(blob_id(stored.outcome))
                break
            await asyncio.sleep(backoff(attempt, *_PAUSE))
        await self.done("forget", id)

    async def _delete(self, id: str) -> None:
        """All that is stored of a task: another one may come to have its id."""
        for what in ("progress", "checkpoint"):
            await self._store.unnote(what, id)
        await purge_subject(self._js, self._subjects.states_stream, self._subjects.state(id))

    # -- the runs of schedules ---------------------------------------------------------

    def scheduled(self, task: TaskMessage, delivery: Delivery) -> TaskMessage:
        """A schedule's run under an id of its own; any other task as it is."""
        if not is_schedule(fired_by(delivery.headers)):
            return task
        return task.named(self.id_of(delivery, task.id))

    def id_of(self, delivery: Delivery, name: str) -> str:
        """The id of the task of that name or id that a message is."""
        if not is_schedule(fired_by(delivery.headers)):
            return name
        fired = datetime.fromtimestamp(delivery.info.stored_at, UTC)
        return f"{name}.{fired:%Y%m%dT%H%M%SZ}"


def _created_at(task: TaskMessage, headers: Mapping[str, str], stored_at: float) -> float | None:
    """When it was created, as anybody who looks at it says; None: they may differ.

    A message that the server moved has another time than before; it says itself when it was created, if
    its caller did as is usual.
    """
    if task.created_at is not None:
        return task.created_at
    return None if fired_by(headers) else stored_at


def _number(data: bytes) -> float | None:
    """The number in a request; None: it has none."""
    try:
        found = float(data)
    except ValueError:
        return None
    return found if isfinite(found) else None
