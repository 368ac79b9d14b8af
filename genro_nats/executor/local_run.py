"""Running a call in this process: its context, its outcome, its items."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any, Final

from genro_nats.codec import values
from genro_nats.codec.functions import find_object, label, not_a_generator
from genro_nats.config import PoolOptions
from genro_nats.errors import ConfigurationError
from genro_nats.executor.bridge import is_cancellation, within, within_deadline
from genro_nats.executor.false_end import no_false_end
from genro_nats.message import Call, CallContext, ProgressUpdate, TaskRun, running_call

__all__ = [
    "InlineSource",
    "describe",
    "entered",
    "guarded",
    "is_async",
    "is_generator",
    "outcome_error",
    "run_initializer",
    "run_inline",
    "run_inline_blocking",
]

_GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_log: Final = logging.getLogger("genro_nats")

Listener = Callable[[ProgressUpdate], object]


def describe(call: Call, address: str = "") -> CallContext:
    """What ``current_call()`` shows while this call runs here."""
    context = CallContext(
        call.id.hex() if call.task is None else call.task.id,
        trace_id=call.trace_id,
        pool=call.pool,
        address=address,
        function=label(call.function),
        attempt=1 if call.task is None else call.task.attempt,
        seconds=inf if call.timeout is None else call.timeout,
        on_progress=call.on_progress,
        on_checkpoint=None if call.task is None else partial(_keep, call.task),
    )
    if call.task is not None:
        if call.task.checkpointed is not None:
            context.checkpointed = values.loads(call.task.checkpointed)
        call.task.when_asked(context.cancel)
    return context


def _keep(task: TaskRun, value: Any) -> None:
    # Pickled although it stays here: what the function does with it later must not change it.
    task.on_checkpoint(values.dumps_whole(value))


def guarded(listener: Listener | None) -> Listener | None:
    """A progress listener whose errors are logged: an observer never breaks a call."""
    if listener is None:
        return None

    def tell(update: ProgressUpdate) -> None:
        try:
            listener(update)
        except Exception:
            _log.exception("a progress listener raised")

    return tell


@contextlib.contextmanager
def entered(context: CallContext) -> Iterator[CallContext]:
    """Make it the running call."""
    token = running_call.set(context)
    try:
        yield context
    finally:
        running_call.reset(token)


async def run_inline(call: Call, address: str = "") -> Any:
    """Run a call here, in the present task; only what awaits can be ended by its deadline."""
    with entered(describe(call, address)) as context:
        try:
            value = call.function(*call.args, **call.kwargs)
            if inspect.isawaitable(value):
                return await within_deadline(call, _settled, value)
            return value
        except BaseException as error:
            if (shown := outcome_error(error)) is error:
                raise
            raise shown  # noqa: B904 - its cause is the traceback, as from afar
        finally:
            context.flush_progress()


def run_inline_blocking(call: Call, address: str = "") -> Any:
    """Run a sync function's call here, without an event loop."""
    with entered(describe(call, address)) as context:
        try:
            return call.function(*call.args, **call.kwargs)
        except BaseException as error:
            if (shown := outcome_error(error)) is error:
                raise
            raise shown  # noqa: B904 - its cause is the traceback, as from afar
        finally:
            context.flush_progress()


async def _settled(value: Any) -> Any:
    return await value


def outcome_error(error: BaseException) -> BaseException:
    """What the caller gets for an error; one that would end a process comes as RemoteError, as from afar."""
    if isinstance(error, Exception | KeyboardInterrupt | GeneratorExit) or is_cancellation(error):
        return error
    from genro_nats.codec.exceptions import dump_error, load_error

    return load_error(dump_error(error))


def is_async(function: Any) -> bool:
    """A coroutine function or an object whose ``__call__`` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - looked at, not called
    )


def is_generator(function: Any) -> bool:
    """A generator function, sync or async. Cheap: it is asked for every call."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & _GENERATOR)


def run_initializer(name: str, options: PoolOptions) -> None:
    """Run a pool's initializer here, if it has one.

    Raises:
        ConfigurationError: it is given by name, and there is nothing to call there.
    """
    initializer = options.initializer
    if isinstance(initializer, str):
        initializer = _imported(name, initializer)
    if initializer is not None:
        initializer(*options.initargs)


def _imported(pool: str, name: str) -> Callable[..., Any]:
    try:
        found = find_object(name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"Initializer {name!r} of pool {pool!r} can't be imported: {error}.", option="initializer"
        ) from error
    if not callable(found):
        raise ConfigurationError(
            f"Initializer {name!r} of pool {pool!r} can't be called.", option="initializer"
        )
    return found  # type: ignore[no-any-return]


class InlineSource:
    """The items of a generator that runs here, step by step, in the task that asks."""

    def __init__(self, call: Call, address: str = "") -> None:
        self._call = call
        self._context = describe(call, address)
        self._items: Any = None

    async def receive(self) -> Any:
        """The next item. Raises StopAsyncIteration at the end, or what the generator raised."""
        with entered(self._context):
            with no_false_end():
                items = self._begun()
            if not hasattr(items, "__next__"):
                name = label(self._call.function)
                seconds = None if self._call.timeout is None else self._context.remaining
                return await within(seconds, name, items.__anext__, stated=self._call.stated)
            with no_false_end():
                item = next(items, self)
        if item is self:
            raise StopAsyncIteration
        return item

    def _begun(self) -> Any:
        if self._items is None:
            items = self._call.function(*self._call.args, **self._call.kwargs)
            if not hasattr(items, "__next__") and not hasattr(items, "__anext__"):
                if inspect.iscoroutine(items):
                    items.close()
                raise not_a_generator(items)
            self._items = items
        return self._items

    async def aclose(self) -> None:
        """Stop the generator."""
        items, self._items = self._items, iter(())
        close = getattr(items, "aclose", None)
        self._context.cancel()
        if close is not None:
            await close()
        else:
            self._close(items)

    def abort(self) -> None:
        """Stop a sync generator; an async one is left to its backend's finalizer."""
        items, self._items = self._items, iter(())
        self._context.cancel()
        self._close(items)

    def _close(self, items: Any) -> None:
        close = getattr(items, "close", None)
        if close is not None:
            with entered(self._context):
                close()
