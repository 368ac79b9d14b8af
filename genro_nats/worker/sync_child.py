"""A child that runs one call at a time in its main thread. It is ended by killing it.

Calls sent ahead wait in the socket. Before one of those is started its token
is taken from a pipe; the parent takes tokens from the same pipe to move calls
elsewhere, so each call is started by exactly one of the two sides' choice.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections import deque
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final

from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, chunks, decode
from genro_nats.executor.children.setup import ChildSetup
from genro_nats.message import STREAM_WINDOW, CallContext
from genro_nats.transport.pipe import BlockingPipe
from genro_nats.worker.answers import error_reply, value_reply
from genro_nats.worker.coroutines import run_apart
from genro_nats.worker.runner import Opened, describe, enter, open_call
from genro_nats.worker.setup import MemoryLimit, function_cache
from genro_nats.worker.streams import as_iterator, pump

__all__ = ["SyncChild"]

_LOOK: Final = 0.05  # seconds until a stream that waits sees what another thread has read


class SyncChild:
    """Serves the pipe until its other end is closed."""

    def __init__(self, pipe: BlockingPipe, tokens: int, setup: ChildSetup) -> None:
        self._pipe = pipe
        self._tokens = tokens
        self._setup = setup
        self._cache = function_cache(setup)
        self._limit = setup.max_payload
        self._memory = MemoryLimit(setup.max_memory)
        self._waiting: deque[tuple[Buffer, bool]] = deque()
        self._reading = threading.Lock()  # threads of the function may ask whether it is cancelled
        self._running = b""  # the id of the call
        self._gate: _PipeGate | None = None  # of the stream that runs

    def serve(self) -> None:
        """Run calls until the parent closes the pipe."""
        self._pipe.send(chunks(Frame(FrameKind.HELLO)))
        while True:
            got = self._next()
            if got is None:
                return
            self._handle(*got)

    def _next(self) -> tuple[Frame, bool] | None:
        """The next frame; nothing else refers to its memory, so that a large one goes as its call opens it."""
        got = self._waiting.popleft() if self._waiting else self._pipe.recv()
        return (decode(got[0])[0], got[1]) if got is not None else None

    def _handle(self, frame: Frame, ahead: bool) -> None:
        if frame.kind != FrameKind.CALL:
            self._cache.obey(frame)  # or a credit or cancel that crossed the end of its call
            return
        if ahead and not self._take_token():
            self._pipe.send(chunks(Frame(FrameKind.SKIPPED, frame.id)))
            return
        self._pipe.send(self._run(frame))

    def _take_token(self) -> bool:
        try:
            return bool(os.read(self._tokens, 1))
        except BlockingIOError:
            return False

    def _run(self, frame: Frame) -> list[Buffer]:
        started = time.monotonic()
        try:
            value = self._outcome(frame)
        except BaseException as error:
            return error_reply(frame, error, started, self._memory.flag(), self._limit)
        return value_reply(frame, value, started, self._memory.flag(), self._limit)

    def _outcome(self, frame: Frame) -> Any:
        opened = open_call(frame, self._cache, self._limit)
        call = describe(
            frame,
            self._setup.pool,
            self._setup.address,
            self._pipe.send,
            lambda: self._look(frame.id, call),
            self._limit,
        )
        context = enter(call, opened)
        self._running = frame.id
        try:
            return self._value(frame, call, opened, context)
        finally:
            self._running = b""
            call.flush_progress()

    def _value(self, frame: Frame, call: CallContext, opened: Opened, context: Context) -> Any:
        value = context.run(opened.function, *opened.args, **opened.kwargs)
        if frame.flags & Flag.STREAM:
            self._gate = gate = _PipeGate(frame.id, self._pipe, self._waiting, self._reading)
            try:
                context.run(pump, frame, as_iterator(value), gate, self._pipe.send, self._limit)
            finally:
                self._gate = None
            return None
        if inspect.iscoroutine(value):
            return run_apart(
                lambda main: context.run(asyncio.run, main), self._cancellable(frame, call, value)
            )
        return value

    async def _cancellable(self, frame: Frame, call: CallContext, value: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine; a cancel that comes through the pipe cancels it."""
        if not frame.flags & Flag.TASK:
            return await value  # its child is killed at once
        running = asyncio.current_task()
        assert running is not None

        def look() -> None:
            self._look(frame.id, call)
            if call.cancelled:
                running.cancel()

        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe.sock, look)
        try:
            return await value
        finally:
            loop.remove_reader(self._pipe.sock)

    def _look(self, id: bytes, call: CallContext) -> None:
        """Read what has come while a call runs: is it to be cancelled?"""
        with self._reading:
            # A thread that outlives its call must not read what is for the next one.
            while self._running == id and self._pipe.readable():
                got = self._pipe.recv()
                if got is None:
                    return
                frame, _ = decode(got[0])
                if frame.kind == FrameKind.CALL:
                    self._waiting.append(got)
                elif frame.kind == FrameKind.CANCEL and frame.id == id:
                    call.cancel()
                    if self._gate is not None:
                        self._gate.heard(frame)
                elif self._gate is not None and frame.id == id:
                    self._gate.heard(frame)
                else:
                    self._cache.obey(frame)


class _PipeGate:
    """Credit of the one stream that runs here; waiting for more is reading the pipe.

    ``reading``: held by who reads it, perhaps a thread of the function that asks whether it is cancelled.
    """

    def __init__(
        self, id: bytes, pipe: BlockingPipe, waiting: deque[tuple[Buffer, bool]], reading: threading.Lock
    ) -> None:
        self._id = id
        self._pipe = pipe
        self._waiting = waiting
        self._reading = reading
        self._credit = STREAM_WINDOW
        self._open = True

    def take(self) -> bool:
        while self._open and (self._credit <= 0 or self._pipe.readable()):
            if self._pipe.readable(_LOOK):
                with self._reading:
                    self._read()
        self._credit -= 1
        return self._open

    def _read(self) -> None:
        if not self._pipe.readable():
            return  # another thread was faster, and has told us
        got = self._pipe.recv()
        if got is None:
            self._open = False
            return
        frame, _ = decode(got[0])
        if frame.id != self._id or frame.kind == FrameKind.CALL:
            self._waiting.append(got)
        else:
            self.heard(frame)

    def heard(self, frame: Frame) -> None:
        """A frame of the stream's call came."""
        if frame.kind == FrameKind.CREDIT:
            self._credit += int(frame.seconds)
        elif frame.kind == FrameKind.CANCEL:
            self._open = False
