"""What is known of a task, and which state may follow which.

::

    scheduled ──▶ pending ──▶ running ──▶ completed
        ▲            ▲         │ │ ▲ │
        └── retry ───┼─────────┘ │ └─┘ another worker claims it
                     └── rerun ──┘
    any of the three on the left ──▶ failed, cancelled

A settled task (completed, failed, cancelled) never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from genro_nats.errors import TaskError
from genro_nats.message import ProgressUpdate

__all__ = ["TRANSITIONS", "TaskState", "TaskStatus", "advance", "may_follow"]


class TaskState(StrEnum):
    """Where a task is in its life.

    ``SCHEDULED``: waits for a time, its first or that of a retry. ``PENDING``: waits for a worker.
    """

    SCHEDULED = "scheduled"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def settled(self) -> bool:
        """Is it final?"""
        return not TRANSITIONS[self]


_ENDED_EARLY: Final = frozenset({TaskState.FAILED, TaskState.CANCELLED})

TRANSITIONS: Final[Mapping[TaskState, frozenset[TaskState]]] = MappingProxyType(
    {
        # From scheduled to running: the server fires a schedule or a retry, and nobody notes "pending".
        TaskState.SCHEDULED: frozenset({TaskState.PENDING, TaskState.RUNNING}) | _ENDED_EARLY,
        TaskState.PENDING: frozenset({TaskState.RUNNING}) | _ENDED_EARLY,
        # From running to running: the worker was lost, and another one claims the task.
        TaskState.RUNNING: frozenset(
            {TaskState.SCHEDULED, TaskState.PENDING, TaskState.RUNNING, TaskState.COMPLETED}
        )
        | _ENDED_EARLY,
        TaskState.COMPLETED: frozenset(),
        TaskState.FAILED: frozenset(),
        TaskState.CANCELLED: frozenset(),
    }
)


def may_follow(state: TaskState, to: TaskState) -> bool:
    """May a task go from ``state`` to ``to``?"""
    return to in TRANSITIONS[state]


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What is known of a task at one moment. Times are seconds since the epoch, the server's clock.

    ``attempts``: how often it was begun. ``progress``: the last one of the latest attempt.
    ``worker`` and ``pid``: who runs it or ran it last. ``error``: why it failed, or why the
    last attempt did. ``next_retry_at``: when a failed attempt is followed by another.
    """

    id: str
    state: TaskState
    created_at: float
    attempts: int = 0
    progress: ProgressUpdate | None = None
    worker: str = ""
    pid: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    error: str = ""
    next_retry_at: float | None = None

    @property
    def settled(self) -> bool:
        """Will it never change again?"""
        return self.state.settled


def advance(
    status: TaskStatus,
    to: TaskState,
    *,
    at: float,
    worker: str = "",
    pid: int | None = None,
    error: str = "",
    next_retry_at: float | None = None,
) -> TaskStatus:
    """The status after a change of state at the time ``at``.

    Running begins an attempt, by ``worker`` and ``pid``; ``error`` says why an attempt or the
    task failed; ``next_retry_at`` is kept while it is scheduled.

    Raises:
        TaskError: this state can't follow, as after a settled one.
    """
    if not may_follow(status.state, to):
        why = "it is settled" if status.settled else f"{to} can't follow"
        raise TaskError(
            f"Task {status.id} is {status.state} and can't become {to}: {why}.", task_id=status.id
        )
    changes: dict[str, Any] = {"next_retry_at": next_retry_at if to is TaskState.SCHEDULED else None}
    if to is TaskState.RUNNING:
        changes |= {"attempts": status.attempts + 1, "started_at": at, "worker": worker, "pid": pid}
        changes |= {"progress": None, "error": ""}
    elif to is TaskState.COMPLETED:
        changes["error"] = ""
    elif error:
        changes["error"] = error
    if to.settled:
        changes["finished_at"] = at
    return replace(status, state=to, **changes)
