"""What every executor is: a place to submit calls to, a decorator, and a thing that starts and ends.

A kind of your own implements three things::

    class Mine(BaseExecutor):
        async def submit(self, function, /, *args, **kwargs): ...
        async def shutdown(self, wait=True): ...
        @property
        def metrics(self): ...

and has the decorator, ``map``, ``async with`` and blocking calls from here.
The kinds of this package stand on ``Pool`` (``pool.py``), which does the rest
of the contract too.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, ParamSpec, Protocol, Self, TypeVar, overload

from genro_nats.codec.functions import label, unwrap
from genro_nats.errors import ConfigurationError, ExecutorError
from genro_nats.executor.bridge import backend, within
from genro_nats.executor.function import CoroutineFunction, Function, decorated
from genro_nats.executor.map import Mapped
from genro_nats.executor.stream import Stream
from genro_nats.message import CallOptions
from genro_nats.tasks.backend import TaskBackend
from genro_nats.tasks.handle import DeadLetters, TaskHandle
from genro_nats.tasks.options import DEFAULT_OPTIONS, TaskOptions, can_be_id, require_id, whole_limit
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.schedule import Schedule
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["NO_OPTIONS", "BaseExecutor", "Decorator"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

NO_OPTIONS: Final = CallOptions()


class Decorator(Protocol):
    """What ``@pool(timeout=..., name=...)`` gives: a decorator of functions."""

    @overload
    def __call__(self, function: CoroutineFunction[P, R], /) -> CoroutineFunction[P, R]: ...
    @overload
    def __call__(self, function: Function[P, R], /) -> Function[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Function[P, R]: ...


class BaseExecutor(ABC):
    """A named pool. ``kind`` says how calls are run, ``durable`` whether its tasks outlive this process."""

    kind: ClassVar[str] = "custom"
    name: str = "default"
    durable: bool = False

    @abstractmethod
    async def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run ``function(*args, **kwargs)`` in the pool and return its value.

        Nothing happens before it is awaited; cancelling the await cancels the call.
        Raises what the function raised, or an ExecutorError.
        """

    @abstractmethod
    async def shutdown(self, wait: bool = True) -> None:
        """Accept no more calls and end; with ``wait`` the calls in hand are finished first."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """Figures; first ``name, mode, pending, submitted, completed, failed, avg_duration_ms``."""

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:  # noqa: B027 - a kind without anything to start needs none
        """Make ready now, instead of at the first call. Raises what prevents it."""

    async def aclose(self) -> None:
        """``shutdown(wait=True)``. Doing it again does nothing."""
        await self.shutdown()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- calls --------------------------------------------------------------

    @overload
    def __call__(self, function: CoroutineFunction[P, R], /) -> CoroutineFunction[P, R]: ...
    @overload
    def __call__(self, function: Function[P, R], /) -> Function[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        timeout: float | None = None,
        by: Literal["name", "value"] | None = None,
    ) -> Decorator: ...
    def __call__(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        timeout: float | None = None,
        by: Literal["name", "value"] | None = None,
    ) -> Any:
        """Decorate a function, so that calls of it run in this pool: ``@pool`` or ``@pool(timeout=30)``.

        ``name``: a stable name for what is stored (default: "module:qualname");
        ``aliases``: its former names; ``timeout``: seconds, over the pool's own.
        ``by``: send it by "name" or by "value", over the pool's own.
        """
        decorate = partial(self._decorate, name=name, aliases=aliases, timeout=timeout, by=by)
        return decorate if function is None else decorate(function)

    def _decorate(self, function: Callable[..., Any], **stated: Any) -> Function[..., Any]:
        return decorated(self, function, **stated)

    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[R]: ...
    @overload
    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T] | AsyncIterable[T],
        *,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[R]: ...
    def map(
        self,
        function: Callable[..., Any],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[Any]:
        """Call ``function(item)`` for each item, ``concurrency`` at a time; async-iterate over the results.

        ``items``: any iterable, sync or async, taken from only as far as needed.
        ``concurrency``: default ``map_concurrency``. ``ordered``: results in the order of
        the items, else as they come. The first error raises and cancels the rest.
        """
        return self.invoke_map(function, items, NO_OPTIONS, concurrency=concurrency, ordered=ordered)

    @overload
    def stream(
        self, function: Callable[P, AsyncIterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Stream[T]: ...
    @overload
    def stream(
        self, function: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Stream[T]: ...
    def stream(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Stream[Any]:
        """The items of a generator function's call, sync or async, as an async iterator."""
        return self.invoke_stream(function, args, kwargs, NO_OPTIONS)

    @property
    def map_concurrency(self) -> int:
        """Calls that ``map`` keeps in flight unless told otherwise."""
        return 8

    # -- tasks --------------------------------------------------------------

    @overload
    async def enqueue(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...
    @overload
    async def enqueue(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskHandle[R]: ...
    async def enqueue(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Store a call as a task, with default options: see ``Function.enqueue``."""
        request = self.task_request(unwrap(function), args, kwargs, NO_OPTIONS, DEFAULT_OPTIONS)
        backend = self.task_backend
        return TaskHandle(backend, await backend.enqueue(request))

    def task(self, id: str) -> TaskHandle[Any]:
        """The task of that id, whoever enqueued it. Whether there is one, ``status()`` says.

        Raises:
            TaskNotFoundError: no task can have this id.
        """
        require_id(id, "task")
        return TaskHandle(self.task_backend, id)

    async def tasks(
        self, *, state: TaskState | str | None = None, limit: int = 100
    ) -> AsyncIterator[TaskStatus]:
        """The statuses of tasks, at most ``limit``; of one state, if given.

        Raises:
            ConfigurationError: no such state, or a limit below 0.
        """
        for status in await self.task_backend.tasks(_state(state), whole_limit(limit)):
            yield status

    async def schedules(self) -> AsyncIterator[Schedule]:
        """The pool's schedules, by name."""
        for schedule in await self.task_backend.schedules():
            yield schedule

    async def unschedule(self, name: str) -> bool:
        """Remove the schedule of that name; was there one?"""
        return can_be_id(name) and await self.task_backend.unschedule(name)

    @property
    def dead(self) -> DeadLetters:
        """The pool's dead letters: tasks that failed for good, and messages that could not be read."""
        return DeadLetters(self.task_backend)

    @property
    def task_backend(self) -> TaskBackend:
        """Who keeps this pool's tasks (for ``Function`` and ``TaskHandle``)."""
        raise ExecutorError(f"Executor '{self.name}' ({type(self).__name__}) can't keep tasks.")

    def task_request(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        task_options: TaskOptions,
        name: str = "",
    ) -> TaskRequest:
        """A task for the backend; ``name``: the function's stable name, if it is not where it stands.

        Raises:
            CodecError: the function has no name by which a worker finds it.
        """
        raise ExecutorError(f"Executor '{self.name}' ({type(self).__name__}) can't keep tasks.")

    # -- what Function stands on -------------------------------------------

    async def invoke(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        """``submit`` with the options of one call."""
        function = unwrap(function)
        return await within(options.timeout, label(function), partial(self.submit, function, *args, **kwargs))

    def invoke_blocking(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Any:
        """``invoke`` for a plain thread, which it blocks.

        Raises:
            ExecutorError: an event loop runs in this thread; blocking it would stop everything in it.
        """
        self._require_plain_thread(function)
        return asyncio.run(self.invoke(function, args, kwargs, options))

    def invoke_map(
        self,
        function: Callable[..., Any],
        items: Iterable[Any] | AsyncIterable[Any],
        options: CallOptions,
        *,
        prefix: tuple[Any, ...] = (),
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[Any]:
        """``map`` with the options of each call; ``prefix`` goes before each item."""

        async def call(item: Any) -> Any:
            return await self.invoke(function, (*prefix, item), {}, options)

        return Mapped(call, items, self.map_concurrency if concurrency is None else concurrency, ordered)

    def invoke_stream(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> Stream[Any]:
        """``stream`` with the options of one call. Executors that can't stream raise ExecutorError."""
        raise ExecutorError(f"Executor '{self.name}' ({type(self).__name__}) can't stream.")

    def _require_plain_thread(self, function: Callable[..., Any]) -> None:
        if backend():
            name = getattr(unwrap(function), "__name__", "function")
            raise ExecutorError(
                f"{name}.call() would block the event loop of this thread: write 'await {name}(...)'."
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _state(stated: TaskState | str | None) -> TaskState | None:
    try:
        return None if stated is None else TaskState(stated)
    except ValueError:
        raise ConfigurationError(f"state={stated!r}: give one of {', '.join(TaskState)}") from None
