"""How a task goes on after an attempt: pure decisions on what came back from the child."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from genro_nats.codec.frame import HEADER_SIZE, Buffer, FrameKind, peek
from genro_nats.codec.functions import label
from genro_nats.errors import CallTimeoutError, WorkerLostError
from genro_nats.tasks.record import Record
from genro_nats.tasks.retry import GiveUp, RetryPolicy, after_death, after_failure, after_miss, type_names
from genro_nats.tasks.status import TaskState
from genro_nats.worker.tasks.work import Ended, GivenBackError

__all__ = ["Again", "End", "GoBack", "Situation", "after_attempt"]

_MAX_ERROR: Final = 2000  # characters
_DEADLINE: Final = f"{CallTimeoutError.__module__}:{CallTimeoutError.__qualname__}"


@dataclass(frozen=True, slots=True)
class Situation:
    """What counts beside the outcome. ``stored``: does anything stored say that it ran? ``draw``: 0 to 1."""

    policy: RetryPolicy
    cancelled: bool
    leaving: bool
    stored: bool
    now: float
    draw: float


@dataclass(frozen=True, slots=True)
class End:
    """It is settled."""

    state: TaskState
    reason: str = ""
    frame: Buffer = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """It is stored as this, and back to the queue for ``delay`` seconds."""

    record: Record
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class GoBack:
    """It never began: back to the queue as it came."""


def after_attempt(claim: Record, ended: Ended, situation: Situation) -> End | Again | GoBack:
    """What follows. ``claim`` is the attempt's record; its counts are brought up to date."""
    error = ended.error
    if situation.cancelled:
        return End(TaskState.CANCELLED, "cancelled")
    if error is None and ended.kind == FrameKind.REPLY:
        return End(TaskState.COMPLETED, frame=ended.frame)
    if isinstance(error, GivenBackError):
        return _given_back(claim, error, situation)
    if isinstance(error, WorkerLostError):
        return _died(claim, error, situation)
    if error is None:
        return _raised(claim, ended.frame, situation)
    return _failed(claim, type_names(type(error)), f"{label(type(error))}: {error}", None, b"", situation)


def _given_back(claim: Record, error: GivenBackError, situation: Situation) -> Again | GoBack:
    if not situation.stored:
        return GoBack()
    attempts = claim.attempts if error.began else claim.attempts - 1
    return Again(claim.to(TaskState.PENDING, attempts=attempts, error=str(error)))


def _died(claim: Record, error: WorkerLostError, situation: Situation) -> End | Again:
    if not situation.leaving:
        # Behind another call in its child it had perhaps not begun: that counts as nobody's death.
        claim.deaths += 1 if claim.alone else 0
        verdict = after_death(claim.deaths)
        if isinstance(verdict, GiveUp):
            return End(TaskState.FAILED, verdict.reason, error=str(error))
    return Again(claim.to(TaskState.PENDING, error=str(error)))


def _raised(claim: Record, frame: Buffer, situation: Situation) -> End | Again:
    facts = _error_facts(frame)
    types = [name for name in facts.get("types", ()) if isinstance(name, str)]
    text = f"{types[0] if types else 'error'}: {facts.get('text', '')}"
    asked = facts.get("retry")
    if facts.get("missing") is True:
        return _missed(claim, text, frame, situation)
    return _failed(claim, types, text, asked if isinstance(asked, int | float) else None, frame, situation)


def _missed(claim: Record, error: str, frame: Buffer, situation: Situation) -> End | Again:
    """The function is not found here: a worker with newer code may have it."""
    claim.misses += 1
    verdict = after_miss(claim.misses, draw=situation.draw)
    if isinstance(verdict, GiveUp):
        return End(TaskState.FAILED, verdict.reason, frame, error)
    claim.attempts -= 1  # it did not begin
    return _later(claim, verdict.delay, error, situation)


def _failed(
    claim: Record,
    types: Sequence[str],
    error: str,
    asked: float | None,
    frame: Buffer,
    situation: Situation,
) -> End | Again:
    claim.failures += 1
    verdict = after_failure(situation.policy, claim.failures, types, draw=situation.draw, asked=asked)
    if not isinstance(verdict, GiveUp):
        return _later(claim, verdict.delay, error, situation)
    deadline = _DEADLINE in types and not frame
    return End(TaskState.FAILED, f"deadline: {error}" if deadline else verdict.reason, frame, error)


def _later(claim: Record, delay: float, error: str, situation: Situation) -> Again:
    due = situation.now + delay
    return Again(claim.to(TaskState.SCHEDULED, error=error[:_MAX_ERROR], next_retry_at=due), delay)


def _error_facts(frame: Buffer) -> dict[str, Any]:
    head = peek(frame)
    at = HEADER_SIZE + head.n_name + 8 * head.n_buffers
    try:
        found = json.loads(bytes(frame[at : at + head.n_meta]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
