"""The engine of process pools: a pool of children in the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from genro_nats.codec.codecs import Codecs, codec_named
from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, chunks, decode
from genro_nats.codec.function_store import FunctionStore
from genro_nats.codec.functions import find_object, label
from genro_nats.config import PoolOptions
from genro_nats.errors import ConfigurationError, ExecutorError
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.pool import ChildPool, PoolPlan
from genro_nats.executor.children.setup import ChildSetup
from genro_nats.executor.children.work import Work
from genro_nats.executor.incoming import ItemBuffer, tell_progress
from genro_nats.executor.wire import CallEncoder, load_reply
from genro_nats.message import Call, ProgressUpdate, TaskRun

__all__ = ["ProcessEngine", "initial_call", "pool_plan", "run_named"]


class _LocalWork(Work):
    """A call whose reply resolves a future."""

    __slots__ = ("codecs", "on_progress", "outcome")

    def __init__(
        self,
        *args: Any,
        codecs: Codecs,
        on_progress: Callable[[ProgressUpdate], object] | None = None,
        **kw: Any,
    ) -> None:
        super().__init__(*args, **kw)
        self.codecs = codecs
        self.outcome: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self.on_progress = on_progress

    def received(self, kind: int, data: Buffer) -> None:
        frame, _ = decode(data)
        if kind == FrameKind.PROGRESS:
            tell_progress(self.on_progress, frame, self.codecs)
        elif not self.outcome.done():
            self.outcome.set_result(frame)

    def failed(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # a caller that left does not look at it


class _TaskWork(_LocalWork):
    """An attempt of a task: who keeps it hears of its start, its checkpoints and how it failed."""

    __slots__ = ("_child", "task")

    def __init__(self, *args: Any, task: TaskRun, **kw: Any) -> None:
        self._child: Child | None = None
        self.task = task
        super().__init__(*args, **kw)
        self.solo = True  # what a child has been given runs

    @property
    def child(self) -> Child | None:
        """The child that has it."""
        return self._child

    @child.setter
    def child(self, child: Child | None) -> None:
        self._child = child
        if child is not None:
            self.task.on_start(child.pid)

    def received(self, kind: int, data: Buffer) -> None:
        if kind == FrameKind.CHECKPOINT:
            self.task.on_checkpoint(bytes(decode(data)[0].body))
            return
        if kind == FrameKind.ERROR:
            self.task.failure = _failure(decode(data)[0])
        super().received(kind, data)


def _failure(frame: Frame) -> dict[str, Any]:
    try:
        found = json.loads(frame.meta)
    except ValueError:
        return {}  # the frame is not from a function, or the child could not say
    return found if isinstance(found, dict) else {}


class ProcessEngine:
    """Kinds ``process`` and ``async-process``.

    ``hints``: modules worth importing before children are forked.
    """

    def __init__(self, options: PoolOptions, *, name: str, kind: str, hints: Sequence[str] = ()) -> None:
        self._name = name
        self._encoder = CallEncoder(
            options.codec, name, store=FunctionStore(options.function_cache), by=options.by
        )
        # What a worker refuses to others, its own program may: those options are the worker's.
        free = replace(options, only_registered=False, allow=(), max_payload_size=sys.maxsize)
        self._pool = ChildPool(pool_plan(free, name=name, kind=kind, hints=hints, encoder=self._encoder))

    async def start(self) -> None:
        """Start the children. Raises as ``ChildPool.start``, or what the initializer raised."""
        self._loop = asyncio.get_running_loop()
        await self._pool.start()

    async def aclose(self, wait: bool = True) -> None:
        """End the children; with ``wait`` once they have finished what is in hand."""
        if wait:
            await self._pool.drained()
        await self._pool.aclose()

    def abandon(self) -> None:
        """Kill the children: the loop is gone."""
        self._pool.abandon()

    async def run(self, call: Call) -> Any:
        """The call's value; cancelling it kills or asks the child, as the kind allows."""
        work = self._work(call)
        self._pool.run(work)
        try:
            return load_reply(await work.outcome, self._encoder.codecs)
        except asyncio.CancelledError:
            self._pool.cancel(work, ExecutorError("The call was cancelled."))
            raise

    def _work(self, call: Call) -> _LocalWork:
        timeout, task = call.timeout, call.task
        frame, function = self._encoder.encode(call, inf if timeout is None else timeout)
        more: dict[str, Any] = {
            "deadline": inf if timeout is None else self._loop.time() + timeout,
            "on_progress": call.on_progress,
            "codecs": self._encoder.codecs,
        }
        work: _LocalWork
        if task is None:
            work = _LocalWork(call.id, chunks(frame), frame.name, **more)
        else:
            work = asked = _TaskWork(call.id, chunks(frame), frame.name, task=task, **more)
            task.when_asked(lambda: self._post(self._ask, asked))
        work.stated, work.function = call.stated, function
        return work

    def _post(self, function: Callable[[Work], object], work: Work) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its children with it
            self._loop.call_soon_threadsafe(function, work)

    def _ask(self, work: Work) -> None:
        self._pool.ask(work, ExecutorError("The task was cancelled."))

    def stream(self, call: Call) -> ItemBuffer:
        """The items of a generator function."""
        return ItemBuffer(lambda items: self._begin_stream(call, items), self._encoder.codecs)

    def _begin_stream(self, call: Call, items: ItemBuffer) -> Callable[[Frame], None]:
        timeout = call.timeout
        frame, function = self._encoder.encode(call, inf if timeout is None else timeout, Flag.STREAM)
        deadline = inf if timeout is None else self._loop.time() + timeout
        work = _StreamWork(call.id, chunks(frame), frame.name, deadline=deadline, stream=True)
        work.items, work.on_progress, work.function = items, call.on_progress, function
        work.stated = call.stated
        work.codecs = self._encoder.codecs
        self._pool.run(work)

        def control(frame: Frame) -> None:
            frame.id = call.id
            if frame.kind == FrameKind.CANCEL:
                self._pool.cancel(work, ExecutorError("The stream was closed."))
            else:
                self._pool.control(work, frame)

        return control

    def facts(self) -> dict[str, Any]:
        """Queue length, busy calls, and each child."""
        return self._pool.facts()


class _StreamWork(Work):
    __slots__ = ("codecs", "items", "on_progress")
    items: ItemBuffer
    codecs: Codecs
    on_progress: Callable[[ProgressUpdate], object] | None

    def received(self, kind: int, data: Buffer) -> None:
        frame, _ = decode(data)
        if kind == FrameKind.PROGRESS:
            tell_progress(self.on_progress, frame, self.codecs)
        else:
            self.items.put(frame)

    def failed(self, error: Exception) -> None:
        self.items.fail(error)


def pool_plan(
    options: PoolOptions,
    *,
    name: str,
    kind: str,
    hints: Sequence[str] = (),
    address: str = "",
    encoder: CallEncoder | None = None,
    on_event: Callable[..., object] | None = None,
) -> PoolPlan:
    """The plan of a pool of children with these options."""
    mode, slots = _mode(options, kind)
    setup = ChildSetup(
        mode=mode,
        slots=slots,
        pool=name,
        address=address,
        max_memory=options.max_memory_per_child,
        only_registered=options.only_registered,
        allow=options.allow,
        initial=label(options.initializer if callable(options.initializer) else run_named),
        max_payload=options.max_payload_size,
    )
    codec = "data" if options.only_registered else "pickle"
    if encoder is None or encoder.codec is not codec_named(codec):
        encoder = CallEncoder(codec, name)
    initializer = None
    if options.initializer is not None:
        function, arguments = options.initializer, options.initargs

        def initializer() -> tuple[Work, asyncio.Future[Any]]:
            return initial_call(encoder, function, arguments)

    more: dict[str, Any] = {} if on_event is None else {"on_event": on_event}
    return PoolPlan(
        name=name,
        size=options.workers,
        setup=setup,
        spares=options.spares,
        max_tasks=options.max_tasks_per_child,
        memory_limit=options.memory_limit,
        imports=(*options.imports, *(options.allow if options.only_registered else ())),
        hints=hints,
        initializer=initializer,
        cancel_grace=options.cancel_grace,
        function_cache=options.function_cache,
        start_timeout=options.start_timeout,
        **more,
    )


def _mode(options: PoolOptions, kind: str) -> tuple[str, int]:
    if kind == "async-process":
        return "async", options.concurrency
    if options.threads > 1:
        return "threads", options.threads
    return "sync", 1


def initial_call(
    encoder: CallEncoder, initializer: Callable[..., Any] | str, arguments: tuple[Any, ...]
) -> tuple[Work, asyncio.Future[Any]]:
    """The call of a pool's initializer, to be run first in a child, and its outcome."""
    function: Callable[..., Any] = initializer if callable(initializer) else run_named
    args = arguments if callable(initializer) else (initializer, *arguments)
    call = Call(function, args, {})
    frame, carried = encoder.encode(call, inf)
    work = _LocalWork(call.id, chunks(frame), frame.name, codecs=encoder.codecs)
    work.function = carried
    return work, asyncio.ensure_future(_value(work.outcome, encoder.codecs))


async def _value(outcome: asyncio.Future[Frame], codecs: Codecs) -> Any:
    return load_reply(await outcome, codecs)


def run_named(name: str, *args: Any) -> None:
    """Run the function that stands at ``module:function``; in a child, for an initializer given by name."""
    try:
        initializer = find_object(name)
    except AttributeError as error:
        raise ConfigurationError(f"The initializer {name!r} does not exist: {error}") from error
    initializer(*args)
