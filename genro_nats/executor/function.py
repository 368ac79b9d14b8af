"""A decorated function: the same call surface wherever its pool runs it."""

from __future__ import annotations

import functools
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from genro_nats.codec.functions import find_object, importable, label, unwrap
from genro_nats.errors import ConfigurationError
from genro_nats.executor.local_run import describe, entered, guarded, is_async, is_generator
from genro_nats.executor.map import Mapped
from genro_nats.executor.stream import Stream
from genro_nats.message import Call, CallOptions, ProgressUpdate
from genro_nats.tasks.handle import ScheduleHandle, TaskHandle
from genro_nats.tasks.options import DEFAULT_OPTIONS, TaskKeywords, TaskOptions
from genro_nats.tasks.schedule import ScheduleSpec, check_name

if TYPE_CHECKING:
    from genro_nats.executor.base import BaseExecutor
    from genro_nats.tasks.backend import TaskBackend
    from genro_nats.tasks.request import TaskRequest

__all__ = ["CoroutineFunction", "Function", "decorated"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
U = TypeVar("U")


class Function(Generic[P, R_co]):
    """A function of a pool.

    ``await fn(x)`` runs it in the pool; ``fn.local(x)`` runs it right here.
    ``name`` is its stable name, ``aliases`` its former ones, ``executor`` its pool.
    Pickles as the plain function plus the pool's name.
    """

    __name__: str
    __qualname__: str

    def __init__(
        self,
        executor: BaseExecutor,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        options: CallOptions | None = None,
        task_options: TaskOptions | None = None,
        prefix: tuple[Any, ...] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self.__genro_target__ = function
        self.executor = executor
        self.name = name or label(function)
        self.aliases = tuple(aliases)
        self._options = options or CallOptions()
        self._task_options = task_options
        self._prefix = prefix  # the instance, where a method was reached through one

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it in the pool. Raises what the function raised, or an ExecutorError."""
        return await self.executor.invoke(  # type: ignore[no-any-return]
            self.__genro_target__, self._prefix + args, kwargs, self._options
        )

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """As ``await fn(...)``, for plain threads: blocks until the value is there.

        Raises:
            ExecutorError: an event loop runs in this thread.
        """
        return self.executor.invoke_blocking(  # type: ignore[no-any-return]
            self.__genro_target__, self._prefix + args, kwargs, self._options
        )

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the plain function here and now, past the pool, its limits and its books."""
        function = self.__genro_target__
        call = self._local_call()
        with entered(describe(call)):
            return function(*self._prefix, *args, **kwargs)  # type: ignore[no-any-return]

    def map(
        self: Callable[[T], Coroutine[Any, Any, U]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        concurrency: int | None = None,
        ordered: bool = True,
    ) -> Mapped[U]:
        """``fn(item)`` for each item, ``concurrency`` at a time: see ``BaseExecutor.map``."""
        this: Any = self  # its annotated type lets checkers compare the items with the parameter
        mapped: Mapped[U] = this.executor.invoke_map(
            this.__genro_target__,
            items,
            this._options,
            prefix=this._prefix,
            concurrency=concurrency,
            ordered=ordered,
        )
        return mapped

    @overload
    def stream(self: Function[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs) -> Stream[T]: ...
    @overload
    def stream(self: Function[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs) -> Stream[T]: ...
    def stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        """The items of a generator function, as they are made; see ``Stream``."""
        return self.executor.invoke_stream(self.__genro_target__, self._prefix + args, kwargs, self._options)

    def options(
        self,
        *,
        timeout: float | None = None,
        on_progress: Callable[[ProgressUpdate], object] | None = None,
        by: Literal["name", "value"] | None = None,
        **task_options: Unpack[TaskKeywords],
    ) -> Self:
        """The same function with options for its calls and tasks; those left out stay as they are.

        ``timeout``: seconds from submitting to the reply, waiting for admission included; for a
        task, the seconds that one attempt may run.
        ``on_progress``: called with each ProgressUpdate, in the caller's event loop.
        ``by``: send the function by "name", to be imported there, or by "value", pickled; a task's is
        stored with it.
        The others are for ``enqueue`` and ``schedule``: see ``TaskOptions``.

        Raises:
            ConfigurationError: an unknown option, or a value that makes no sense.
        """
        given = {"timeout": timeout, "on_progress": on_progress, "by": by}
        stated: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        changed: dict[str, Any] = {"options": replace(self._options, **stated)}
        if task_options:
            changed["task_options"] = self._for_tasks().with_stated(dict(task_options))
        return self._variant(**changed)

    # -- tasks --------------------------------------------------------------

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R_co]:
        """Store the call as a task: it runs once a worker takes it, whatever becomes of this process.

        It is stored when this returns. Raises CodecError for a function without a stable name (see
        ``by`` in ``options``), ExecutorOverloadError, TransportError.
        """
        request = self._task_request(args, kwargs)
        backend = self.executor.task_backend
        return TaskHandle(backend, await backend.enqueue(request))

    async def enqueue_many(
        self: Callable[[T], Coroutine[Any, Any, U]], items: Iterable[T]
    ) -> list[TaskHandle[U]]:
        """``enqueue(item)`` for each item, many at once; their handles in order.

        Raises:
            ExecutorError: the first error, ``stored`` holding the handles of those that were stored.
        """
        this: Any = self
        backend: TaskBackend = this.executor.task_backend
        requests = [this._task_request((item,), {}) for item in items]
        outcomes = await backend.enqueue_many(requests)
        handles = [TaskHandle[U](backend, id) for id in outcomes if isinstance(id, str)]
        for error in outcomes:
            if not isinstance(error, str):
                error.fields["stored"] = handles
                raise error
        return handles

    async def schedule(
        self,
        schedule_name: str,
        /,
        *,
        cron: str = "",
        timezone: str = "",
        every: float = 0.0,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> ScheduleHandle:
        """Enqueue it again and again, with ``args`` and ``kwargs``; a schedule of that name is replaced.

        ``cron``: 5 fields, in ``timezone`` (such as "Europe/Rome"; default UTC). ``every``: seconds.
        Each run is a task of its own, with the id ``<name>.<time>``, the time as 20261231T030000Z.

        Raises:
            ConfigurationError: no such time can be, or an option that contradicts a schedule.
        """
        check_name(schedule_name)
        spec = ScheduleSpec(cron, timezone, every)
        options = self._for_tasks()
        stated = [name for name in ("delay", "at", "id") if getattr(options, name) is not None]
        if stated:
            raise ConfigurationError(f"{stated[0]}= contradicts a schedule: leave it out.", option=stated[0])
        backend = self.executor.task_backend
        await backend.schedule(schedule_name, spec, self._task_request(args, dict(kwargs or {})))
        return ScheduleHandle(backend, schedule_name, spec)

    def _for_tasks(self) -> TaskOptions:
        return self._task_options or DEFAULT_OPTIONS

    def _task_request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskRequest:
        return self.task_request(self.executor, args, kwargs)

    def task_request(
        self, executor: BaseExecutor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskRequest:
        """A task of that pool that calls this function, with its options (for ``TaskManager``)."""
        return executor.task_request(
            self.__genro_target__,
            self._prefix + args,
            kwargs,
            self._options,
            self._for_tasks(),
            "" if self.name == label(self.__genro_target__) else self.name,
        )

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: Function[Concatenate[T, Q], U], instance: T, owner: type | None = None
    ) -> Function[Q, U]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._variant(prefix=(*self._prefix, instance))

    def _variant(self, **changed: Any) -> Self:
        state: dict[str, Any] = {
            "name": self.name,
            "aliases": self.aliases,
            "options": self._options,
            "task_options": self._task_options,
            "prefix": self._prefix,
        }
        return type(self)(self.executor, self.__genro_target__, **{**state, **changed})

    def _local_call(self) -> Call:
        options = self._options
        return Call(
            self.__genro_target__,
            (),
            {},
            pool=self.executor.name,
            timeout=options.timeout,
            on_progress=guarded(options.on_progress),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        function = self.__genro_target__
        name = label(function)
        # A plain function below a decorator can't be pickled by reference: the
        # module holds the wrapper. By value only where no name leads to it.
        target = name if importable(function, name) else function
        return _restored, (
            target,
            self.executor.name,
            self.name,
            self.aliases,
            self._options.timeout,
            self._prefix,
            getattr(self.executor, "address", ""),
            self._task_options,
            self._options.by,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of pool {self.executor.name!r}>"


class CoroutineFunction(Function[P, R_co]):
    """A decorated ``async def``: ``await fn(x)`` gives what it returns, ``fn.local(x)`` its coroutine."""

    def local(  # type: ignore[override]
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """The plain function's coroutine, to be awaited here, past the pool, its limits and its books."""
        return self._local(args, kwargs)

    async def _local(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with entered(describe(self._local_call())):
            return await self.__genro_target__(*self._prefix, *args, **kwargs)


def decorated(
    executor: BaseExecutor,
    function: Callable[..., Any],
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    timeout: float | None = None,
    by: Literal["name", "value"] | None = None,
) -> Function[..., Any]:
    """The Function of a plain function, or of one that another pool decorated already.

    Raises:
        ConfigurationError: it is no function, or a staticmethod or classmethod object; or no such ``by``.
    """
    plain = unwrap(function)
    if isinstance(plain, staticmethod | classmethod):
        kind = type(plain).__name__
        raise ConfigurationError(f"Put @{kind} above the decorator of pool {executor.name!r}, not below it.")
    if not callable(plain):
        raise ConfigurationError(
            f"Pool {executor.name!r} can't decorate a {type(plain).__name__}: pass a function."
        )
    wrapper = CoroutineFunction if is_async(plain) and not is_generator(plain) else Function
    options = CallOptions(timeout=timeout, by=by)
    return wrapper(executor, plain, name=name, aliases=aliases, options=options)


def _restored(
    target: str | Callable[..., Any],
    pool: str,
    name: str,
    aliases: tuple[str, ...],
    timeout: float | None,
    prefix: tuple[Any, ...],
    address: str = "",
    task_options: TaskOptions | None = None,
    by: Literal["name", "value"] | None = None,
) -> Function[..., Any]:
    """What a pickled Function becomes: the module's own if it is of that pool, else one without a pool."""
    found = find_object(target) if isinstance(target, str) else target
    options = CallOptions(timeout=timeout, by=by)
    if isinstance(found, Function) and found.executor.name == pool:
        return found._variant(options=options, task_options=task_options, prefix=prefix)
    from genro_nats.executor.detached import DetachedExecutor

    plain = unwrap(found)
    wrapper = CoroutineFunction if is_async(plain) else Function
    pool_there = DetachedExecutor(pool, address)
    return wrapper(
        pool_there,
        plain,
        name=name,
        aliases=aliases,
        options=options,
        task_options=task_options,
        prefix=prefix,
    )
