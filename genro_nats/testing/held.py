"""Calls of a memory pool: encoded when they come, decoded and run when the test says so."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from math import inf
from typing import Any

from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, chunks, decode
from genro_nats.codec.functions import FunctionCache, label, not_a_generator
from genro_nats.errors import ExecutorError
from genro_nats.executor.bridge import Signal, Spawned, caller_post, is_cancellation, spawn, within
from genro_nats.executor.false_end import no_false_end
from genro_nats.executor.incoming import tell_progress
from genro_nats.executor.wire import CallEncoder, load_reply, load_value
from genro_nats.message import Call, CallContext
from genro_nats.worker.answers import error_reply, item_frame, value_reply
from genro_nats.worker.runner import Opened, describe, enter, open_call

__all__ = ["HeldCall", "HeldStream"]

Run = Callable[["HeldCall"], None]


class HeldCall:
    """One call. ``function``: "module:qualname"; ``id``: hex; ``done`` once it has an outcome.

    ``begin(self)`` is called when it starts to run.
    """

    flags = 0

    def __init__(self, call: Call, encoder: CallEncoder, begin: Run) -> None:
        self.function = label(call.function)
        self.id = call.id.hex()
        self._codecs = encoder.codecs
        self.done = Signal()
        self._timeout, self._stated = call.timeout, call.stated
        self._begin = begin
        self._reply: Frame | None = None
        self._error: BaseException | None = None
        self._task: Spawned[None] | None = None
        frame, _ = encoder.encode(call, inf if call.timeout is None else call.timeout, self.flags)
        self._frame = _travel(chunks(frame))
        post = caller_post()

        def send(parts: list[Buffer]) -> None:
            post(tell_progress, call.on_progress, _travel(parts), encoder.codecs)

        self.context: CallContext = describe(self._frame, call.pool, "", send)

    async def run(self) -> None:
        """Run it to its end. Once it has begun, or its caller has left, this does nothing."""
        if self._task is not None or self.done.is_set:
            return
        self._begin(self)
        started = time.monotonic()
        try:
            opened = open_call(self._frame, FunctionCache())
            context = enter(self.context, opened)
        except Exception as error:
            self._answer(error_reply(self._frame, error, started))
            return
        await self._in_context(context, partial(self._outcome, opened, started))

    async def _in_context(self, context: Context, work: Callable[[], Any]) -> None:
        task = self._task = context.run(spawn, work)
        try:
            await task.done.wait()
        except BaseException:
            task.cancel()
            raise
        try:
            task.result()
        except BaseException as error:
            if not is_cancellation(error):
                raise  # the test's own end, such as Ctrl-C
            self.fail(ExecutorError(f"{self.function} was cancelled."))

    async def _outcome(self, opened: Opened, started: float) -> None:
        try:
            value = opened.function(*opened.args, **opened.kwargs)
            if inspect.isawaitable(value):
                value = await value
        except (Exception, SystemExit) as error:
            self._answer(error_reply(self._frame, error, started))
        else:
            self._answer(value_reply(self._frame, value, started))

    def _answer(self, parts: list[Buffer]) -> None:
        self._reply = _travel(parts)
        self.done.set()

    def fail(self, error: BaseException) -> None:
        """End the wait for it."""
        if not self.done.is_set:
            self._error = error
            self.done.set()

    def give_up(self) -> None:
        """Its caller has left: end it if it runs."""
        if not self.done.is_set:
            self.context.cancel()
            self.fail(ExecutorError(f"The caller of {self.function} has left."))
            if self._task is not None:
                self._task.cancel()

    def value(self) -> Any:
        """Its value; raises what it raised. Once it is done."""
        if self._reply is None:
            raise self._error or ExecutorError(f"{self.function} has no outcome.")
        return load_reply(self._reply, self._codecs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.function} {self.id}>"


class HeldStream(HeldCall):
    """A generator's call: held like others; then each item is made when its reader asks."""

    flags = Flag.STREAM

    def __init__(self, call: Call, encoder: CallEncoder, begin: Run) -> None:
        super().__init__(call, encoder, begin)
        self._items: Any = None
        self._context: Context | None = None

    async def _outcome(self, opened: Opened, started: float) -> None:
        try:
            items = opened.function(*opened.args, **opened.kwargs)
            if not hasattr(items, "__next__") and not hasattr(items, "__anext__"):
                raise not_a_generator(items)
        except (Exception, SystemExit) as error:
            self._answer(error_reply(self._frame, error, started))
        else:
            self._items = items
            self._context = enter(self.context, opened)
            self.done.set()

    async def receive(self) -> Any:
        """The next item. Raises StopAsyncIteration at the end, or what the generator raised."""
        seconds = None if self._timeout is None else self.context.remaining
        await within(seconds, self.function, self._received, stated=self._stated)
        frame, self._reply = self._reply, None
        if self._error is not None:
            raise self._error
        if frame is None:
            raise StopAsyncIteration
        load = load_value if frame.kind == FrameKind.ITEM else load_reply
        with no_false_end():
            return load(frame, self._codecs)

    async def _received(self) -> None:
        await self.done.wait()
        if self._items is not None and self._context is not None:
            await self._in_context(self._context.copy(), self._step)

    async def _step(self) -> None:
        items = self._items
        try:
            if hasattr(items, "__anext__"):
                item = await anext(items, self)
            else:
                item = next(items, self)
            if item is self:
                self._items = None
            else:
                self._answer(item_frame(self._frame, item))
        except (Exception, SystemExit) as error:
            self._items = None
            self._answer(error_reply(self._frame, error, time.monotonic()))

    async def aclose(self) -> None:
        """Stop the generator."""
        items, context = self._items, self._context
        self._leave()
        if items is not None and context is not None:
            await self._in_context(context, partial(_close, items))

    def abort(self) -> None:
        """Stop a sync generator; an async one is left to its backend's finalizer."""
        items, context = self._items, self._context
        self._leave()
        if hasattr(items, "close") and context is not None:
            context.run(items.close)

    def _leave(self) -> None:
        self._begin(self)  # nobody waits for it any more
        self._items = None
        self.context.cancel()
        self.fail(ExecutorError("The stream was closed."))


async def _close(items: Any) -> None:
    if hasattr(items, "aclose"):
        await items.aclose()
    elif hasattr(items, "close"):
        items.close()


def _travel(parts: list[Buffer]) -> Frame:
    """The frame as its receiver gets it."""
    return decode(b"".join(parts))[0]
