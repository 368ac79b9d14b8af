"""A task in the caller's hands: rebuilt from its id anywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

from genro_nats.tasks.backend import DeadLetter, TaskBackend
from genro_nats.tasks.options import can_be_id, require_id, whole_limit
from genro_nats.tasks.schedule import ScheduleSpec
from genro_nats.tasks.status import TaskStatus

__all__ = ["CANCEL_TIMEOUT", "DeadLetters", "ScheduleHandle", "TaskHandle"]

T_co = TypeVar("T_co", covariant=True)

CANCEL_TIMEOUT = 10.0  # seconds


class TaskHandle(Generic[T_co]):
    """One task: ask about it, wait for it, watch it, cancel it."""

    __slots__ = ("_backend", "id")

    def __init__(self, backend: TaskBackend, id: str) -> None:
        self._backend = backend
        self.id = id

    async def status(self) -> TaskStatus:
        """What is known of it now.

        Raises:
            TaskNotFoundError: no such task, or its outcome is older than its ``result_ttl``.
        """
        return await self._backend.status(self.id)

    async def result(self, timeout: float | None = None) -> T_co:
        """Its value, once it is completed; waits without polling.

        Raises:
            CallTimeoutError: not settled, or its outcome not read, within ``timeout`` seconds; the task lives on.
            TaskCancelledError: it was cancelled.
            TaskFailedError: it died, expired, overran its deadline, or there was no room for its outcome
                (``reason`` says which).
            TaskNotFoundError: no such task.
            Exception: what the function raised in its last attempt.
        """
        return await self._backend.result(self.id, timeout)  # type: ignore[no-any-return]

    async def cancel(self, timeout: float = CANCEL_TIMEOUT) -> bool:
        """End it, whatever its state: True if it ended cancelled within ``timeout`` seconds.

        One that waits never runs. One that runs is asked (async functions by cancellation, others by
        ``current_call().cancelled``), and after ``cancel_grace`` its child is killed.
        False: it was settled before, or nobody has carried this out yet; the request stays stored.
        """
        return await self._backend.cancel(self.id, timeout)

    async def watch(self) -> AsyncGenerator[TaskStatus, None]:
        """Its status now and after each change, progress included, up to the settled one.

        One that is left early should be closed: ``async with contextlib.aclosing(task.watch())``.
        """
        source = await self._backend.watch(self.id)
        try:
            while True:
                try:
                    status = await source.receive()
                except StopAsyncIteration:
                    return
                yield status
        finally:
            await source.aclose()

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}>"


class ScheduleHandle:
    """A schedule in the caller's hands."""

    __slots__ = ("_backend", "name", "spec")

    def __init__(self, backend: TaskBackend, name: str, spec: ScheduleSpec) -> None:
        self._backend = backend
        self.name = name
        self.spec = spec

    async def remove(self) -> bool:
        """Run it no more; was it still there?"""
        return await self._backend.unschedule(self.name)

    def __repr__(self) -> str:
        return f"<ScheduleHandle {self.name!r}: {self.spec}>"


class DeadLetters:
    """The dead letters of a pool."""

    __slots__ = ("_backend",)

    def __init__(self, backend: TaskBackend) -> None:
        self._backend = backend

    async def list(self, limit: int = 100) -> list[DeadLetter]:
        """The oldest ones, at most ``limit``. Raises ConfigurationError for a limit below 0."""
        return await self._backend.dead(whole_limit(limit))

    async def replay(self, id: str) -> TaskHandle[object]:
        """Enqueue its call as a new task and drop the letter.

        Raises:
            TaskNotFoundError: there is no such letter.
            TaskError: it holds no call, or its ``key`` is another task's.
        """
        require_id(id, "dead letter")
        return TaskHandle(self._backend, await self._backend.replay(id))

    async def drop(self, id: str) -> bool:
        """Remove it; was it there?"""
        return can_be_id(id) and await self._backend.drop(id)
