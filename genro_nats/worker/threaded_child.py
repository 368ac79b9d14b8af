"""A child that runs calls on threads: it shares memory between calls, and cancels by asking.

The main thread reads the pipe; each call runs on a pool thread. Cancelling
turns ``current_call().cancelled`` true and cancels a coroutine; a function that does not look is ended
by the parent, which kills the whole child once its neighbours are done.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, chunks, decode
from genro_nats.errors import CallTimeoutError, DecodeError
from genro_nats.executor.children.setup import ChildSetup
from genro_nats.message import CallContext
from genro_nats.transport.pipe import BlockingPipe
from genro_nats.worker.answers import error_reply, value_reply
from genro_nats.worker.coroutines import run_apart
from genro_nats.worker.runner import describe, enter, open_call
from genro_nats.worker.setup import MemoryLimit, function_cache
from genro_nats.worker.streams import ThreadGate, as_iterator, pump

__all__ = ["ThreadedChild"]


class ThreadedChild:
    """Serves the pipe until its other end is closed."""

    def __init__(self, pipe: BlockingPipe, setup: ChildSetup) -> None:
        self._pipe = pipe
        self._setup = setup
        self._cache = function_cache(setup)
        self._limit = setup.max_payload
        self._memory = MemoryLimit(setup.max_memory)
        self._writing = threading.Lock()
        self._running: dict[bytes, tuple[CallContext, ThreadGate]] = {}
        self._cancels: dict[bytes, Callable[[], object]] = {}
        self._threads = ThreadPoolExecutor(setup.slots, thread_name_prefix=setup.pool or "call")

    def serve(self) -> None:
        """Hand calls to threads until the parent closes the pipe."""
        self._send(chunks(Frame(FrameKind.HELLO)))
        while (got := self._pipe.recv()) is not None:
            frame, _ = decode(got[0])
            if frame.kind == FrameKind.CALL:
                self._begin(frame)
            elif frame.id in self._running:
                self._control(frame)
            else:
                self._cache.obey(frame)

    def _begin(self, frame: Frame) -> None:
        try:
            call = describe(frame, self._setup.pool, self._setup.address, self._send, limit=self._limit)
        except DecodeError as error:
            self._send(error_reply(frame, error, time.monotonic(), 0, self._limit))
            return
        gate = ThreadGate()
        self._running[frame.id] = (call, gate)
        self._threads.submit(self._run, frame, call, gate)

    def _control(self, frame: Frame) -> None:
        call, gate = self._running[frame.id]
        if frame.kind == FrameKind.CREDIT:
            gate.grant(int(frame.seconds))
        elif frame.kind == FrameKind.CANCEL:
            call.cancel()
            gate.close()
            with contextlib.suppress(KeyError, RuntimeError):  # it is no coroutine, or has just ended
                self._cancels[frame.id]()

    def _send(self, parts: list[Buffer]) -> None:
        with self._writing:
            self._pipe.send(parts)

    def _run(self, frame: Frame, call: CallContext, gate: ThreadGate) -> None:
        started = time.monotonic()
        try:
            try:
                value = self._outcome(frame, call, gate)
            finally:
                call.flush_progress()  # may raise: its data are the function's
        except BaseException as error:
            reply = error_reply(frame, error, started, self._memory.flag(), self._limit)
        else:
            reply = value_reply(frame, value, started, self._memory.flag(), self._limit)
        self._running.pop(frame.id, None)
        self._send(reply)

    def _outcome(self, frame: Frame, call: CallContext, gate: ThreadGate) -> Any:
        if call.cancelled:
            raise CallTimeoutError("The call was cancelled before it began.")
        opened = open_call(frame, self._cache, self._limit)
        context = enter(call, opened)
        value = context.run(opened.function, *opened.args, **opened.kwargs)
        if frame.flags & Flag.STREAM:
            context.run(pump, frame, as_iterator(value), gate, self._send, self._limit)
            return None
        if inspect.iscoroutine(value):
            return run_apart(
                lambda main: context.run(asyncio.run, main), self._cancellable(frame.id, call, value)
            )
        return value

    async def _cancellable(self, id: bytes, call: CallContext, value: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine that a CANCEL frame, which another thread reads, can cancel."""
        running = asyncio.current_task()
        assert running is not None
        self._cancels[id] = partial(asyncio.get_running_loop().call_soon_threadsafe, running.cancel)
        try:
            if call.cancelled:
                value.close()
                raise asyncio.CancelledError
            return await value
        finally:
            self._cancels.pop(id, None)
