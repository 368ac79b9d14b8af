"""The streams and consumers of a pool's tasks: whoever needs them first creates them, if it may.

===========  ===========  ========================================================================
tasks        work queue   the calls; a message leaves when its outcome is stored
states       limits       one message per subject: states, requests, progress, checkpoints, lists
blobs        limits       arguments, outcomes and notes too large for a message, in chunks
dead         limits       what was given up, until somebody replays or drops it
===========  ===========  ========================================================================
"""

from __future__ import annotations

from typing import Final

from genro_nats.config import PoolOptions
from genro_nats.errors import PermissionDeniedError
from genro_nats.tasks.options import Priority
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.streams import (
    ConsumerSpec,
    StreamSpec,
    consumer_exists,
    ensure_consumer,
    ensure_stream,
)
from genro_nats.transport.subjects import TaskSubjects

__all__ = [
    "DUPLICATES",
    "LEVELS",
    "consumer_spec",
    "ensure_streams",
    "require_streams",
    "stream_specs",
    "streams_exist",
]

LEVELS: Final = tuple(Priority)  # the highest first
DUPLICATES: Final = (
    30.0  # seconds in which a repeated enqueue is recognised by its id; longer than one insists
)


def stream_specs(subjects: TaskSubjects, options: PoolOptions) -> tuple[StreamSpec, ...]:
    """The four streams of a pool, that of tasks first."""
    kept = {"storage": options.storage, "replicas": options.replicas, "allow_direct": True}
    tasks = StreamSpec(
        subjects.tasks_stream,
        (subjects.of("task", ">"), subjects.of("schedule", ">")),
        retention="workqueue",
        duplicate_window=DUPLICATES,
        allow_msg_ttl=True,
        allow_msg_schedules=True,
        **kept,  # type: ignore[arg-type]
    )
    states = StreamSpec(
        subjects.states_stream,
        tuple(subjects.of(room, ">") for room in ("state", "ask", "note", "index")),
        max_messages_per_subject=1,
        duplicate_window=1.0,
        allow_msg_ttl=True,
        republish=(
            subjects.of("state", "*", "*", "*"),
            subjects.of("told", *(f"{{{{wildcard({n})}}}}" for n in (1, 2, 3))),
        ),
        **kept,  # type: ignore[arg-type]
    )
    blobs = StreamSpec(
        subjects.blobs_stream,
        (subjects.of("blob", ">"),),
        max_messages_per_subject=1,
        discard="new",  # where an administrator limits it: to drop the oldest chunks would break a task
        duplicate_window=1.0,
        allow_msg_ttl=True,
        **kept,  # type: ignore[arg-type]
    )
    dead = StreamSpec(
        subjects.dead_stream,
        (subjects.of("dead", ">"),),
        max_messages_per_subject=1,
        duplicate_window=1.0,
        **kept,  # type: ignore[arg-type]
    )
    return tasks, states, blobs, dead


def consumer_spec(subjects: TaskSubjects, level: Priority, options: PoolOptions) -> ConsumerSpec:
    """The consumer of one priority; a worker's silence for ``lease`` seconds gives its tasks to another."""
    return ConsumerSpec(level.value, (subjects.of("task", "now", level.value, ">"),), ack_wait=options.lease)


async def streams_exist(js: JetStream, subjects: TaskSubjects) -> bool:
    """Has the pool its streams? The last consumer is created last, and tells; any role may ask for it."""
    return await consumer_exists(js, subjects.tasks_stream, LEVELS[-1].value)


async def require_streams(js: JetStream, subjects: TaskSubjects, options: PoolOptions) -> None:
    """``ensure_streams`` for a caller, which may not look at each: of those that exist, the first is compared.

    To look at a stream is to be told all of its subjects, and those of other callers are none of its business.

    Raises:
        PermissionDeniedError: they do not exist, and this user may not create them; or may not look.
        ConfigurationError, TransportError: as ``ensure_stream``.
    """
    if await streams_exist(js, subjects):
        await ensure_stream(js, stream_specs(subjects, options)[0])
        await _ensure_consumers(js, subjects, options)
        return
    try:
        await ensure_streams(js, subjects, options)
    except PermissionDeniedError as error:
        raise PermissionDeniedError(
            f"The streams of the tasks of {options.subject!r} do not exist yet, and this user may not create "
            f"them: start a worker of that pool once, which does. {error}",
            **error.fields,
        ) from error


async def ensure_streams(js: JetStream, subjects: TaskSubjects, options: PoolOptions) -> None:
    """Create what does not exist. Raises as ``ensure_stream``."""
    for spec in stream_specs(subjects, options):
        await ensure_stream(js, spec)
    await _ensure_consumers(js, subjects, options)


async def _ensure_consumers(js: JetStream, subjects: TaskSubjects, options: PoolOptions) -> None:
    for level in LEVELS:
        await ensure_consumer(js, subjects.tasks_stream, consumer_spec(subjects, level, options))
