"""Schedules: stored once, fired by the server."""

from __future__ import annotations

import logging
from typing import Final

from genro_nats.errors import CodecError, ConfigurationError, PermissionDeniedError, StreamError
from genro_nats.executor.nats_tasks.submit import Submitter
from genro_nats.tasks.message import read_message
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule, ScheduleSpec
from genro_nats.transport.direct import StoredMessage, get_last, purge_subject, scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.schedules import (
    REMOVAL,
    cron_headers,
    every_headers,
    parse,
    require_recurring,
    target_of,
)
from genro_nats.transport.subjects import TaskSubjects, from_token, token
from genro_nats.transport.times import from_rfc3339

__all__ = ["Recurring"]

log: Final = logging.getLogger("genro_nats.executor")

_AS_STATED: Final = "Genro-Cron"  # servers write some expressions in another way
_NEVER: Final = 10189  # the server's code for a pattern that it does not take
_LIMIT: Final = 10_000  # schedules listed
_REMOVED: Final = 1.0  # seconds that the empty message which replaces a schedule stays


class Recurring:
    """The schedules of one pool."""

    def __init__(self, js: JetStream, subjects: TaskSubjects, submitter: Submitter) -> None:
        self._js = js
        self._subjects = subjects
        self._submitter = submitter
        self._publisher = Publisher(js, subjects.tasks_stream)

    async def store(self, name: str, spec: ScheduleSpec, request: TaskRequest) -> None:
        """Store a schedule, or replace the one of that name."""
        require_recurring(self._js)
        options = request.options
        request.id = name
        target = self._subjects.task(options.priority, options.key, name)
        headers = every_headers(spec.every, target)
        if spec.cron:
            headers = {**cron_headers(spec.cron, spec.timezone, target), _AS_STATED: spec.cron}
        # The runs have it too: what is stored of them stays as long as the schedule or one of them does.
        owners = [self._subject(name), target, self._subjects.of("dead", "*")]
        data, blob = await self._submitter.message(request, owners)
        try:
            await self._publisher.publish(self._subject(name), data, headers)
        except StreamError as error:
            self._submitter.refused(blob, error)
            if error.code != _NEVER or not spec.cron:
                raise
            raise ConfigurationError(
                f"cron={spec.cron!r} is never due, or the server does not know timezone={spec.timezone!r}.",
                option="cron",
            ) from error

    async def list(self) -> list[Schedule]:
        """All schedules, by name."""
        where = self._subjects.of("schedule", "*")
        found = await scan(self._js, self._subjects.tasks_stream, where, limit=_LIMIT)
        schedules = [schedule for message in found if (schedule := _readable(message))]
        return sorted(schedules, key=lambda schedule: schedule.name)

    async def remove(self, name: str) -> bool:
        """Remove a schedule; was it there?

        That needs no right to purge: a message that is none takes its place. Who may store none, as
        that would be a right to make schedules, purges it: a manager, say.
        """
        found = await get_last(self._js, self._subjects.tasks_stream, self._subject(name))
        if found is None or not target_of(found.headers):
            return False
        try:
            await self._publisher.publish(self._subject(name), headers=REMOVAL, ttl=_REMOVED)
        except PermissionDeniedError:
            await purge_subject(self._js, self._subjects.tasks_stream, self._subject(name))
        return True

    def _subject(self, name: str) -> str:
        return self._subjects.of("schedule", token(name))


def _readable(message: StoredMessage) -> Schedule | None:
    """As ``_read``; one that can't be read must not hide the others."""
    try:
        return _read(message)
    except (CodecError, ValueError) as error:
        log.warning("the schedule on %s can't be read: %s", message.subject, error)
        return None


def _read(message: StoredMessage) -> Schedule | None:
    told = parse(message.headers)
    if told is None or message.flaw is not None:
        return None
    cron = message.headers.get(_AS_STATED, told.cron)
    spec = ScheduleSpec(cron, told.timezone, told.every)
    created = from_rfc3339(message.time)
    name = from_token(message.subject.rpartition(".")[2])
    return Schedule(name, spec, read_message(message.data, message.subject).function, created)
