"""What follows when an attempt of a task ends: a pure decision on what it raised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from genro_nats.codec.error_text import qualname, text_of
from genro_nats.codec.functions import label
from genro_nats.errors import (
    CallTimeoutError,
    ExecutorClosedError,
    RemoteTraceback,
    TaskFailedError,
    WorkerLostError,
)
from genro_nats.message import Call
from genro_nats.tasks.retry import (
    GiveUp,
    RetryAfter,
    RetryPolicy,
    after_death,
    after_failure,
    asked_delay,
    type_names,
)

__all__ = ["Again", "Cause", "Over", "cause_of", "closed_reason", "error_text", "follows", "pool_ended"]

_PAUSE: Final = 0.05  # seconds
_MAX_MOVES: Final = 20
_MAX_TEXT: Final = 2000  # characters of an error's text in a status


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt ended without a value.

    ``death``: its child ended. ``move``: the event loop that held the children ended, and they with
    it. ``late``: it overran its timeout. Else the function raised ``error``, of the classes
    ``types``, and asked to be tried again after ``retry`` seconds, if it did.
    """

    error: BaseException
    death: bool = False
    move: bool = False
    late: bool = False
    types: tuple[str, ...] = ()
    retry: float | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Run it again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Over:
    """It has failed for good: ``error`` is what its ``result`` raises."""

    reason: str
    error: BaseException


def cause_of(error: BaseException, call: Call, *, has_children: bool) -> Cause:
    """Tell the function's own exceptions from those of the pool that ran it."""
    ended = isinstance(error, WorkerLostError | ExecutorClosedError)
    if ended and has_children and not _from_function(error):
        return Cause(
            error, death=isinstance(error, WorkerLostError), move=isinstance(error, ExecutorClosedError)
        )
    failure = {} if call.task is None else call.task.failure
    late = isinstance(error, CallTimeoutError) and not failure and _is_deadline(error, call)
    types = tuple(failure.get("types", ())) or type_names(type(error))
    return Cause(error, late=late, types=types, retry=_asked(error, failure))


def follows(
    cause: Cause, policy: RetryPolicy, *, task_id: str, failures: int, deaths: int, moves: int, draw: float
) -> Again | Over:
    """Is it run again? The counts have this attempt already; ``draw``: from 0 to 1."""
    verdict: RetryAfter | GiveUp
    if cause.move:
        # Nobody's fault; the next one waits until that loop is quite gone.
        verdict = (
            RetryAfter(_PAUSE * moves) if moves <= _MAX_MOVES else GiveUp("every event loop it ran in ended")
        )
    elif cause.death:
        verdict = after_death(deaths)
    else:
        verdict = after_failure(policy, failures, cause.types, draw=draw, asked=cause.retry)
    if isinstance(verdict, RetryAfter):
        return Again(verdict.delay)
    return _over(cause, verdict, task_id)


def _over(cause: Cause, verdict: GiveUp, task_id: str) -> Over:
    if not (cause.death or cause.move or cause.late):
        return Over(verdict.reason, cause.error)
    reason = f"overran its deadline: {cause.error}" if cause.late else verdict.reason
    failed = TaskFailedError(f"Task {task_id} failed: {reason}", task_id=task_id, reason=reason)
    failed.__cause__ = cause.error
    return Over(reason, failed)


def error_text(error: BaseException) -> str:
    """An exception in a status: its class and its text."""
    name, text = qualname(type(error)), text_of(error)[:_MAX_TEXT]
    return f"{name}: {text}" if text else name


def closed_reason(pool: str) -> str:
    """Why tasks end when their pool does."""
    return f"executor '{pool}', which kept it in memory, was shut down"


def _asked(error: BaseException, failure: dict[str, Any]) -> float | None:
    if failure.get("retry") is not None:
        return float(failure["retry"])
    return asked_delay(error)


def _is_deadline(error: CallTimeoutError, call: Call) -> bool:
    return error.fields.get("function") == label(call.function) and not _from_function(error)


def _from_function(error: BaseException) -> bool:
    """Did it come out of the function, in a child?"""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RemoteTraceback):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def pool_ended(error: BaseException) -> bool:
    """Was the pool shut down under it?"""
    return isinstance(error, ExecutorClosedError) and not _from_function(error)
