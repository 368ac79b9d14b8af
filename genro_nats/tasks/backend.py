"""What a pool needs to keep tasks: one protocol, met in memory by local pools and on JetStream by NATS ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from genro_nats.errors import ExecutorError
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule, ScheduleSpec
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["DeadLetter", "StatusSource", "TaskBackend"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that failed for good, or a message that could not be read.

    ``id``: the task's (of an unreadable message: one made up for it). ``function``: its stable
    name. ``reason``: why it was given up; ``error``: the last exception's text. ``attempts``: how
    often it ran; ``deaths``: how often its child or worker died. ``died_at``: seconds since the epoch.
    """

    id: str
    function: str
    reason: str
    error: str
    attempts: int
    deaths: int
    died_at: float


class StatusSource(Protocol):
    """The statuses of one task as they change; the first is the present one."""

    async def receive(self) -> TaskStatus:
        """The next one. Raises StopAsyncIteration after a settled one."""

    async def aclose(self) -> None:
        """Watch no longer. Can be repeated."""


class TaskBackend(Protocol):
    """Keeps the tasks of one pool. Ids are the tasks'. Raises ExecutorErrors only.

    All but ``result`` raise TaskNotFoundError for an id that is not known (any more).
    """

    async def enqueue(self, request: TaskRequest) -> str:
        """Store a task; the id of it, or of the one that is there already by ``key`` or ``id``."""

    async def enqueue_many(self, requests: Sequence[TaskRequest]) -> list[str | ExecutorError]:
        """Store many at once; for each, in order, what ``enqueue`` gives or raises."""

    async def status(self, id: str) -> TaskStatus:
        """What is known of it now."""

    async def result(self, id: str, timeout: float | None) -> Any:
        """Its value once it is completed; raises as ``TaskHandle.result``."""

    async def cancel(self, id: str, timeout: float) -> bool:
        """Cancel it; True once it has ended cancelled, False if it ended otherwise or not in time."""

    async def watch(self, id: str) -> StatusSource:
        """Its statuses from now on."""

    async def tasks(self, state: TaskState | None, limit: int) -> list[TaskStatus]:
        """Tasks of a state, at most ``limit``."""

    async def schedule(self, name: str, spec: ScheduleSpec, request: TaskRequest) -> None:
        """Store a schedule, or replace the one of that name."""

    async def schedules(self) -> list[Schedule]:
        """All schedules, by name."""

    async def unschedule(self, name: str) -> bool:
        """Remove a schedule; was there one?"""

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Dead letters, the oldest first."""

    async def replay(self, id: str) -> str:
        """Enqueue a dead letter's call as a new task, whose id is returned, and drop the letter."""

    async def drop(self, id: str) -> bool:
        """Remove a dead letter; was there one?"""
