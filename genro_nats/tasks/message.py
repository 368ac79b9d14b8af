"""A task's message: the call's frame, whose meta says how the task is kept and retried.

Meta, beside ``trace``: ``id``, ``at`` (where the function stood), and ``task``, an object
with what differs from the defaults of ``TaskOptions``, and ``created`` (server time) if
the message was stored for later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final

from genro_nats.codec.frame import (
    HEADER_SIZE,
    Buffer,
    Flag,
    Frame,
    FrameKind,
    Head,
    check,
    chunks,
    decode,
    name_of,
)
from genro_nats.errors import ConfigurationError, DecodeError
from genro_nats.tasks.options import DEFAULT_OPTIONS, DEFAULT_RESULT_TTL, TaskOptions, can_be_id
from genro_nats.tasks.request import call_id
from genro_nats.tasks.retry import RetryPolicy
from genro_nats.transport.subjects import from_token, is_made_up

__all__ = ["TaskMessage", "attempt_frame", "for_attempt", "meta_of", "read_message"]

_POLICY: Final = ("retries", "backoff", "factor", "max_backoff", "retry_on", "give_up_on")
_NO_POLICY: Final = RetryPolicy()


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """What a worker needs to know of a task; the arguments stay pickled in ``data``."""

    id: str
    function: str
    data: Buffer
    head: Head
    policy: RetryPolicy
    expires: float | None
    ttl: float
    keep: bool
    created_at: float | None

    @property
    def call_id(self) -> bytes:
        """The id by which frames name it."""
        return self.head.id

    @property
    def is_referred(self) -> bool:
        """Are its arguments stored apart from it?"""
        return bool(self.head.flags & Flag.REFERRED)

    @property
    def id_differs(self) -> bool:
        """Does its frame name another id? A schedule's does."""
        return self.head.id != call_id(self.id)

    def named(self, id: str) -> TaskMessage:
        """The same call as another task: a schedule's run."""
        return replace(self, id=id)


def meta_of(
    id: str, at: str, trace: str, options: TaskOptions, created_at: float | None = None, *, name: str = ""
) -> bytes:
    """The meta of a task's frame; nothing if it would say nothing that the frame and its subject don't.

    ``name``: the function's stable name.
    """
    if options is DEFAULT_OPTIONS and at == name and not trace and created_at is None and is_made_up(id):
        return b""
    stated = {} if options is DEFAULT_OPTIONS else _stated(options)
    if created_at is not None:
        stated["created"] = round(created_at, 6)
    meta: dict[str, Any] = {"id": id, "at": at}
    if trace:
        meta["trace"] = trace
    if stated:
        meta["task"] = stated
    return json.dumps(meta).encode()


def _stated(options: TaskOptions) -> dict[str, Any]:
    policy = options.policy
    stated: dict[str, Any] = {
        name: value for name in _POLICY if (value := getattr(policy, name)) != getattr(_NO_POLICY, name)
    }
    if options.expires is not None:
        stated["expires"] = options.expires
    if options.result_ttl != DEFAULT_RESULT_TTL:
        stated["ttl"] = options.result_ttl
    if not options.keep_result:
        stated["keep"] = False
    return stated


def read_message(data: Buffer, subject: str) -> TaskMessage:
    """A task's message, its meta checked; nothing is unpickled. ``subject``: where it was, with its id.

    Raises:
        DecodeError: it is no task.
    """
    head = check(data)
    if head.kind != FrameKind.CALL or not head.flags & Flag.TASK:
        raise DecodeError(f"A message of kind {head.kind} where tasks are expected.", id=head.id)
    name = name_of(data, head)
    if not head.n_meta:
        id = from_token(subject.rpartition(".")[2])
        return TaskMessage(
            id, name.decode(errors="replace"), data, head, _NO_POLICY, None, DEFAULT_RESULT_TTL, True, None
        )
    at = HEADER_SIZE + head.n_name + 8 * head.n_buffers
    try:
        meta = json.loads(str(data[at : at + head.n_meta], "utf-8"))
        facts = meta.get("task", {})
        policy = {key: _listed(facts[key]) for key in _POLICY if key in facts}
        return TaskMessage(
            _id(meta["id"]),
            name.decode(),
            data,
            head,
            RetryPolicy(**policy) if policy else _NO_POLICY,
            _positive(facts.get("expires")),
            _positive(facts.get("ttl")) or DEFAULT_RESULT_TTL,
            facts.get("keep", True) is not False,
            _number(facts.get("created")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigurationError) as error:
        raise DecodeError(f"A task whose meta can't be read: {error!r}", id=head.id) from error


def for_attempt(task: TaskMessage, attempt: int, checkpoint: Buffer | None) -> list[Buffer]:
    """The call's frame for another attempt than the first, with what an earlier one left."""
    frame, _ = decode(task.data)
    attempt_frame(frame, task, attempt, checkpoint)
    return chunks(frame)


def attempt_frame(frame: Frame, task: TaskMessage, attempt: int, checkpoint: Buffer | None) -> None:
    """Make the call's frame, or its head, that of another attempt than the first."""
    meta = json.loads(frame.meta) if frame.meta else {}
    frame.meta = json.dumps({**meta, "id": task.id, "attempt": attempt}).encode()
    frame.id = call_id(task.id)
    if checkpoint is not None:
        frame.flags |= Flag.CHECKPOINT
        frame.buffers = [*frame.buffers, checkpoint]


def _listed(value: Any) -> Any:
    return tuple(map(_text, value)) if isinstance(value, list) else _number(value)


def _number(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{value!r} is no number")
    if value is not None and not isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return value


def _positive(value: Any) -> Any:
    if _number(value) is not None and value <= 0:
        raise ValueError(f"{value!r} is no duration")
    return value


def _id(value: Any) -> str:
    if not can_be_id(_text(value)):
        raise ValueError("an id of no or too many bytes")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
