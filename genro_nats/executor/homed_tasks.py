"""A task backend that lives in an engine's loop, used from whatever loop or thread the caller is in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from genro_nats.errors import ExecutorError
from genro_nats.executor.home import Home
from genro_nats.executor.homed import post_progress
from genro_nats.tasks.backend import DeadLetter, StatusSource, TaskBackend
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule, ScheduleSpec
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["HomedTasks"]


class HomedTasks:
    """Meets ``TaskBackend`` by relaying. ``settle`` gives the started home, ``tasks_of`` its backend."""

    def __init__(
        self, settle: Callable[[], Awaitable[Home]], tasks_of: Callable[[Home], TaskBackend]
    ) -> None:
        self._settle = settle
        self._tasks_of = tasks_of

    async def _do(self, method: str, *args: Any) -> Any:
        home = await self._settle()
        function = getattr(self._tasks_of(home), method)
        return await (function(*args) if home.here else home.relay(function, *args))

    async def enqueue(self, request: TaskRequest) -> str:
        """See ``TaskBackend``, as for all the others."""
        home = await self._settle()
        tasks = self._tasks_of(home)
        if home.here:
            return await tasks.enqueue(request)
        post_progress(request.call)
        return await home.relay(tasks.enqueue, request)  # type: ignore[no-any-return]

    async def enqueue_many(self, requests: Sequence[TaskRequest]) -> list[str | ExecutorError]:
        if not (await self._settle()).here:
            for request in requests:
                post_progress(request.call)
        return await self._do("enqueue_many", requests)  # type: ignore[no-any-return]

    async def status(self, id: str) -> TaskStatus:
        return await self._do("status", id)  # type: ignore[no-any-return]

    async def result(self, id: str, timeout: float | None) -> Any:
        home = await self._settle()
        result = self._tasks_of(home).result
        return await (result(id, timeout) if home.here else home.relay(result, id, timeout))

    async def cancel(self, id: str, timeout: float) -> bool:
        return await self._do("cancel", id, timeout)  # type: ignore[no-any-return]

    async def watch(self, id: str) -> StatusSource:
        home = await self._settle()
        watch = self._tasks_of(home).watch
        return _HomedSource(home, await (watch(id) if home.here else home.relay(watch, id)))

    async def tasks(self, state: TaskState | None, limit: int) -> list[TaskStatus]:
        return await self._do("tasks", state, limit)  # type: ignore[no-any-return]

    async def schedule(self, name: str, spec: ScheduleSpec, request: TaskRequest) -> None:
        await self._do("schedule", name, spec, request)

    async def schedules(self) -> list[Schedule]:
        return await self._do("schedules")  # type: ignore[no-any-return]

    async def unschedule(self, name: str) -> bool:
        return await self._do("unschedule", name)  # type: ignore[no-any-return]

    async def dead(self, limit: int) -> list[DeadLetter]:
        return await self._do("dead", limit)  # type: ignore[no-any-return]

    async def replay(self, id: str) -> str:
        return await self._do("replay", id)  # type: ignore[no-any-return]

    async def drop(self, id: str) -> bool:
        return await self._do("drop", id)  # type: ignore[no-any-return]


class _HomedSource:
    """A watch, read from whatever loop asks."""

    def __init__(self, home: Home, source: StatusSource) -> None:
        self._home = home
        self._source = source

    async def receive(self) -> TaskStatus:
        home = self._home
        status: TaskStatus = await (self._source.receive() if home.here else home.relay(self._source.receive))
        return status

    async def aclose(self) -> None:
        home = self._home
        if not home.gone:
            await (self._source.aclose() if home.here else home.relay(self._source.aclose))
