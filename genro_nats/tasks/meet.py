"""What a worker does with a task that it was given: pure decisions on what is stored of it."""

from __future__ import annotations

from dataclasses import dataclass

from genro_nats.tasks.record import Record
from genro_nats.tasks.retry import MAX_DELAY, GiveUp, after_death
from genro_nats.tasks.status import TaskState

__all__ = ["Drop", "Run", "Settle", "Wait", "meet"]


@dataclass(frozen=True, slots=True)
class Run:
    """Begin an attempt; ``deaths`` so far, the last holder's included."""

    deaths: int


@dataclass(frozen=True, slots=True)
class Wait:
    """It is not due: give it back for so many seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Settle:
    """It ends here without running."""

    state: TaskState
    reason: str
    deaths: int


@dataclass(frozen=True, slots=True)
class Drop:
    """It is settled already: take it off the queue."""


def meet(
    record: Record | None, *, now: float, expires_at: float | None, cancelled: bool
) -> Run | Wait | Settle | Drop:
    """What follows when a worker is given a task, of which ``record`` is stored.

    ``now`` and ``expires_at`` are server times; a task that has begun once does not expire.
    A record that says "running" means that its holder died or lost its lease: the server gives
    a task to one worker at a time, and to another only after that.
    """
    deaths = 0 if record is None else record.deaths
    if record is not None and record.state.settled:
        return Drop()
    if cancelled:
        return Settle(TaskState.CANCELLED, "cancelled", deaths)
    begun = record is not None and record.attempts > 0
    if not begun and expires_at is not None and now > expires_at:
        return Settle(
            TaskState.FAILED, f"expired: not begun within its time ({now - expires_at:.1f} s late)", deaths
        )
    if record is None:
        return Run(0)
    if record.state is TaskState.RUNNING and record.alone:
        deaths += 1
        verdict = after_death(deaths)
        if isinstance(verdict, GiveUp):
            return Settle(TaskState.FAILED, verdict.reason, deaths)
    if record.state is TaskState.SCHEDULED and (record.next_retry_at or 0.0) > now + 0.05:
        return Wait(min((record.next_retry_at or 0.0) - now, MAX_DELAY))
    return Run(deaths)
