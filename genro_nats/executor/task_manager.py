"""Tasks for code that can't wait: submit now, with an id at once, and confirm that it was stored later."""

from __future__ import annotations

import builtins
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, overload

from genro_nats.codec.functions import unwrap
from genro_nats.errors import ExecutorClosedError
from genro_nats.executor.base import NO_OPTIONS, BaseExecutor
from genro_nats.executor.bridge import Signal, backend, spawn
from genro_nats.executor.function import Function
from genro_nats.executor.relay import LoopThread
from genro_nats.tasks.backend import TaskBackend
from genro_nats.tasks.handle import CANCEL_TIMEOUT, TaskHandle
from genro_nats.tasks.options import DEFAULT_OPTIONS
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["SubmittedTask", "TaskManager"]

P = ParamSpec("P")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)
_log: Final = logging.getLogger("genro_nats")


class TaskManager:
    """The tasks of one pool, or of a process pool of its own.

    ``executor``: any pool; it is neither started nor ended here. None: a local process
    pool named "tasks", which lives as long as the manager.
    """

    def __init__(self, executor: BaseExecutor | None = None) -> None:
        self._own = executor is None
        self.executor = executor or _own_pool()
        self._storing: dict[str, _Storing] = {}
        self._thread: LoopThread | None = None
        self._closed = False

    # -- tasks --------------------------------------------------------------

    @overload
    def submit(
        self, job: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> SubmittedTask[R]: ...
    @overload
    def submit(self, job: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SubmittedTask[R]: ...
    def submit(self, job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> SubmittedTask[Any]:
        """Enqueue ``job(*args, **kwargs)``; ``job`` may be decorated, with options for its tasks.

        Returns at once. ``await`` what it returns to know that the task is stored; an error
        of storing is raised there, and logged if nobody awaits it.

        Raises:
            CodecError: the function has no name by which a worker finds it.
            ExecutorClosedError: the manager was closed.
        """
        if self._closed:
            raise ExecutorClosedError("This TaskManager is closed; start() opens it again.")
        request = self._request(job, args, kwargs)
        storing = _Storing(request.id, self.executor.task_backend)
        self._storing[request.id] = storing
        self._begin(storing, request)
        return SubmittedTask(storing)

    def _request(self, job: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskRequest:
        if isinstance(job, Function):
            return job.task_request(self.executor, args, kwargs)
        return self.executor.task_request(unwrap(job), args, kwargs, NO_OPTIONS, DEFAULT_OPTIONS)

    def _begin(self, storing: _Storing, request: TaskRequest) -> None:
        if backend():
            spawn(self._store, storing, request)
            return
        if self._thread is None:
            self._thread = LoopThread("genro-nats-task-manager")
        self._thread.loop.call_soon_threadsafe(spawn, self._store, storing, request)

    async def _store(self, storing: _Storing, request: TaskRequest) -> None:
        try:
            await storing.store(request)
        finally:
            if self._storing.get(request.id) is storing:
                del self._storing[request.id]

    async def status(self, id: str) -> TaskStatus:
        """What is known of a task now. Raises TaskNotFoundError."""
        return await (await self._stored(id)).status()

    async def result(self, id: str, timeout: float | None = None) -> Any:
        """Its value once it is completed; raises as ``TaskHandle.result``."""
        return await (await self._stored(id)).result(timeout)

    async def cancel(self, id: str, timeout: float = CANCEL_TIMEOUT) -> bool:
        """End it, whatever its state: True if it ended cancelled within ``timeout`` seconds."""
        return await (await self._stored(id)).cancel(timeout)

    async def list(self, state: TaskState | str | None = None, limit: int = 100) -> builtins.list[TaskStatus]:
        """The statuses of tasks, at most ``limit``; of one state, if given."""
        return [status async for status in self.executor.tasks(state=state, limit=limit)]

    async def _stored(self, id: str) -> TaskHandle[Any]:
        """The task of that id; if it is just being stored, once that is done."""
        storing = self._storing.get(id)
        return self.executor.task(id if storing is None else await storing.wait())

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Make ready now. Raises what prevents it."""
        self._closed = False
        if self._own:
            await self.executor.start()

    async def aclose(self) -> None:
        """Take no more tasks, see those in hand stored, and end the pool, if it is the manager's own."""
        self._closed = True
        for storing in builtins.list(self._storing.values()):
            await storing.done.wait()
        if self._own:
            await self.executor.aclose()
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Storing:
    """A task on its way into the store. An error that nobody looks at is logged."""

    def __init__(self, id: str, backend: TaskBackend) -> None:
        self.id = id
        self.backend = backend
        self.done = Signal()
        self._error: BaseException | None = None
        self._seen = False

    async def store(self, request: TaskRequest) -> None:
        """Store it; ``id`` is then that of the task, which may have been there already."""
        try:
            self.id = await self.backend.enqueue(request)
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.done.set()

    async def wait(self) -> str:
        """The id under which it is stored; raises why it is not."""
        await self.done.wait()
        if self._error is not None:
            self._seen = True
            raise self._error
        return self.id

    def __del__(self) -> None:
        if self._error is not None and not self._seen:
            _log.error("task %s was not stored: %s: %s", self.id, type(self._error).__name__, self._error)


class SubmittedTask(TaskHandle[T_co]):
    """A task that is perhaps not stored yet: ``await`` it to know. The rest waits for that by itself.

    ``id`` is there at once; of a task with a ``key`` it may change when that turns out to be taken.
    """

    __slots__ = ("_storing",)

    def __init__(self, storing: _Storing) -> None:
        super().__init__(storing.backend, storing.id)
        self._storing = storing

    def __await__(self) -> Generator[Any, None, Self]:
        return self._confirmed().__await__()

    async def _confirmed(self) -> Self:
        self.id = await self._storing.wait()
        return self

    async def status(self) -> TaskStatus:
        """As ``TaskHandle.status``, once it is stored."""
        await self
        return await super().status()

    async def result(self, timeout: float | None = None) -> T_co:
        """As ``TaskHandle.result``, once it is stored."""
        await self
        return await super().result(timeout)

    async def cancel(self, timeout: float = CANCEL_TIMEOUT) -> bool:
        """As ``TaskHandle.cancel``, once it is stored."""
        await self
        return await super().cancel(timeout)

    async def watch(self) -> AsyncGenerator[TaskStatus, None]:
        """As ``TaskHandle.watch``, once it is stored."""
        await self
        async for status in super().watch():
            yield status


def _own_pool() -> BaseExecutor:
    from genro_nats.executor.process import ProcessExecutor

    return ProcessExecutor("tasks")
