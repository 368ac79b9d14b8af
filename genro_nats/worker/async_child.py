"""A child that runs coroutine functions in one event loop (kind ``async-process``).

Sync functions run on threads beside it. Cancelling a call cancels its task.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, chunks, decode
from genro_nats.codec.functions import not_a_generator
from genro_nats.errors import DecodeError
from genro_nats.executor.children.setup import ChildSetup
from genro_nats.message import CallContext
from genro_nats.transport.pipe import Parts, Pipe, detached
from genro_nats.worker.answers import error_reply, item_frame, value_reply
from genro_nats.worker.runner import Opened, describe, enter, open_call
from genro_nats.worker.setup import MemoryLimit, function_cache
from genro_nats.worker.streams import AsyncGate, ThreadGate, as_iterator, pump

__all__ = ["AsyncChild"]


class _Running:
    """One call: its task, its context and its gate (of the one kind or the other)."""

    __slots__ = ("begun", "call", "gate", "task")

    def __init__(self, call: CallContext) -> None:
        self.call = call
        self.gate: AsyncGate | ThreadGate = AsyncGate()
        self.task: asyncio.Task[None] | None = None
        self.begun = False  # a task that is cancelled before would end without a reply


class AsyncChild:
    """Serves the pipe until its other end is closed."""

    def __init__(self, pipe: socket.socket, setup: ChildSetup) -> None:
        self._sock = pipe
        self._setup = setup
        self._cache = function_cache(setup)
        self._limit = setup.max_payload
        self._memory = MemoryLimit(setup.max_memory)
        self._running: dict[bytes, _Running] = {}
        self._threads = ThreadPoolExecutor(min(setup.slots, 64), thread_name_prefix=setup.pool or "call")

    def serve(self) -> None:
        """Run calls as tasks until the parent closes the pipe."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        ended = asyncio.Event()
        self._pipe = Pipe(self._sock, self._received, ended.set)
        self._send(chunks(Frame(FrameKind.HELLO)))
        await ended.wait()

    def _send(self, parts: Parts) -> None:
        self._pipe.send(parts)

    def _send_from_anywhere(self, parts: list[Buffer]) -> None:
        if threading.get_ident() == self._ident:
            self._send(parts)  # posted, the last progress would come after the reply
        else:
            self._loop.call_soon_threadsafe(self._send, detached(parts))  # its function goes on meanwhile

    def _received(self, data: Buffer, ahead: bool) -> None:
        frame, _ = decode(data)
        if frame.kind == FrameKind.CALL:
            self._begin(frame)
        elif (running := self._running.get(frame.id)) is not None:
            self._control(running, frame)
        else:
            self._cache.obey(frame)

    def _begin(self, frame: Frame) -> None:
        try:
            call = describe(
                frame, self._setup.pool, self._setup.address, self._send_from_anywhere, limit=self._limit
            )
        except DecodeError as error:
            self._send(error_reply(frame, error, time.monotonic(), 0, self._limit))
            return
        running = self._running[frame.id] = _Running(call)
        running.task = self._loop.create_task(self._run(frame, running))

    def _control(self, running: _Running, frame: Frame) -> None:
        if frame.kind == FrameKind.CREDIT:
            running.gate.grant(int(frame.seconds))
        elif frame.kind == FrameKind.CANCEL:
            running.call.cancel()
            running.gate.close()
            if running.task is not None and running.begun and isinstance(running.gate, AsyncGate):
                running.task.cancel()

    async def _run(self, frame: Frame, running: _Running) -> None:
        started = time.monotonic()
        running.begun = True
        try:
            if running.call.cancelled:
                raise asyncio.CancelledError
            try:
                value = await self._outcome(frame, running)
            finally:
                running.call.flush_progress()  # may raise: its data are the function's
        except BaseException as raised:
            error = raised.error if type(raised) is _Raised else raised  # isinstance would ask its __class__
            reply = error_reply(frame, error, started, self._memory.flag(), self._limit)
        else:
            reply = value_reply(frame, value, started, self._memory.flag(), self._limit)
        self._running.pop(frame.id, None)
        self._send(reply)

    async def _outcome(self, frame: Frame, running: _Running) -> Any:
        opened = open_call(frame, self._cache, self._limit)
        context = enter(running.call, opened)
        if frame.flags & Flag.STREAM:
            return await self._stream(frame, opened, context, running)
        if not _is_async(opened.function):
            running.gate = ThreadGate()  # a thread can't be cancelled, only asked
            value = await self._in_thread(context, _apply, opened)
        else:
            value = context.run(_apply, opened)
        if inspect.isawaitable(value):
            return await self._loop.create_task(_contained(value), context=context)
        return value

    async def _stream(self, frame: Frame, opened: Opened, context: Context, running: _Running) -> None:
        if inspect.isasyncgenfunction(opened.function):
            gate = running.gate
            assert isinstance(gate, AsyncGate)
            items = context.run(_apply, opened)
            await self._loop.create_task(_contained(self._pump(frame, items, gate)), context=context)
            return
        thread_gate = running.gate = ThreadGate()
        await self._in_thread(context, self._pump_in_thread, frame, opened, thread_gate)

    async def _in_thread(self, context: Context, function: Callable[..., Any], *args: Any) -> Any:
        # An outcome of either sort comes as a value: no future takes a StopIteration as its error.
        value, error = await self._loop.run_in_executor(self._threads, _outcome_of, context, function, args)
        if error is not None:
            raise _Raised(error)
        return value

    def _pump_in_thread(self, frame: Frame, opened: Opened, gate: ThreadGate) -> None:
        pump(frame, as_iterator(_apply(opened)), gate, self._send_from_anywhere, self._limit)

    async def _pump(self, frame: Frame, items: AsyncIterator[Any], gate: AsyncGate) -> None:
        if not hasattr(items, "__anext__"):
            raise not_a_generator(items)
        try:
            while await gate.take():
                try:
                    item = await items.__anext__()
                except StopAsyncIteration:
                    return
                self._send(item_frame(frame, item, self._limit))
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()


def _is_async(function: Any) -> bool:
    # An instance whose __call__ is async counts too.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _apply(opened: Opened) -> Any:
    return opened.function(*opened.args, **opened.kwargs)


def _outcome_of(
    context: Context, function: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Any, BaseException | None]:
    try:
        return context.run(function, *args), None
    except BaseException as error:
        return None, error


class _Raised(Exception):
    """Carries what a call raised and a coroutine can't: it would end the loop, or become another error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _contained(value: Any) -> Any:
    try:
        return await value
    except (SystemExit, KeyboardInterrupt) as error:
        raise _Raised(error) from None
