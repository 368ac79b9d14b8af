"""One child process as its parent sees it: its pipe, its tokens, the calls in its hands.

Calls sent ahead wait in the child's socket, and a child that runs a long call
can't give them back. So each call sent ahead comes with a token, one byte in a
pipe that both sides hold: the child takes one before it starts such a call,
and the parent takes tokens to move the calls at the end of the line elsewhere.
The kernel hands each byte to one of the two only, so a call is never started
twice. The child answers SKIPPED for each call it finds no token for, and is
sent nothing new until it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genro_nats.codec.frame import Buffer, Frame, FrameKind, Head, chunks, peek
from genro_nats.errors import WorkerLostError
from genro_nats.executor.children.choice import DEPTH
from genro_nats.executor.children.taught import Taught
from genro_nats.executor.children.work import CarriedFunction, Work
from genro_nats.transport.pipe import Parts, Pipe

if TYPE_CHECKING:
    from genro_nats.executor.children.spawner import Spawner

__all__ = ["Child"]


class Child:
    """Sends calls, counts what is in flight, takes back what has not started.

    ``on_frame(child, head, data)`` gets each frame,
    ``on_end(child)`` is called once when the pipe closes.
    """

    def __init__(
        self,
        slots: int,
        max_tasks: int | None,
        on_frame: Callable[[Child, Head, Buffer], None],
        on_end: Callable[[Child], None],
        *,
        single: bool,
        function_cache: int = 1 << 28,
    ) -> None:
        self.pid = 0
        self._taught = Taught(function_cache)
        self.slots = slots
        self.single = single
        self.inflight: dict[bytes, Work] = {}
        self.served = 0
        self.head_since = 0.0
        self.retiring = False
        self.ready = False
        self.dying = False  # killed, and its pipe does not say so yet
        self.ended = False
        self.buried = False
        self.exit_status: int | None = None
        self.doomed: Work | None = None
        self.outworn = False  # to be replaced once a successor is ready
        self.crowded = False  # near its memory limit: no new calls
        self.verdict: WorkerLostError | None = None  # why we ended it
        self.spawner: Spawner
        self._max_tasks = max_tasks
        self._skipping = 0
        self._long = 0  # calls in its hands that are not expected to be short
        self._ahead: list[Parts] = []
        self._on_frame = on_frame
        self._on_end = on_end
        self._pipe: Pipe
        self._tokens_r = self._tokens_w = -1

    def open(self) -> tuple[socket.socket, int]:
        """Make the pipe; the child's end of it and the tokens' read end (the caller closes the former)."""
        self._tokens_r, self._tokens_w = os.pipe()
        os.set_blocking(self._tokens_r, False)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            self.close_tokens()
            raise
        with contextlib.suppress(OSError):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._pipe = Pipe(ours, self._received, self._ended)
        return theirs, self._tokens_r

    @property
    def ahead(self) -> int:
        """Calls that may be in its hands at once, sent ahead included."""
        if not self.single:
            return self.slots
        if self._max_tasks is None:
            return DEPTH
        return min(DEPTH, self._max_tasks - self.served)

    @property
    def all_short(self) -> bool:
        """Is everything in its hands expected to be short?"""
        return self._long == 0

    @property
    def paused(self) -> bool:
        """Must not be sent calls now."""
        return self._skipping > 0 or self.crowded or self.leaving

    @property
    def leaving(self) -> bool:
        """Will it be sent no more calls at all?"""
        return self.retiring or self.doomed is not None or self.dying or self.ended

    @property
    def worn_out(self) -> bool:
        """Has it run as many calls as ``max_tasks_per_child`` allows?"""
        return self._max_tasks is not None and self.served >= self._max_tasks

    def send(self, work: Work) -> None:
        """Put a call into its hands. What is sent ahead in one turn of the loop goes in one piece."""
        if work.function is not None:
            self._teach(work.function)
        work.child = self
        ahead = self.single and bool(self.inflight)
        self.inflight[work.id] = work
        if not work.short:
            self._long += 1
        if not ahead:
            self.head_since = time.monotonic()
            self._pipe.send(work.parts)
            work.parts = ()  # what may have started is never sent again: its memory is free for the reply
            return
        if not self._ahead:
            asyncio.get_running_loop().call_soon(self._send_ahead)
        self._ahead.append(work.parts)

    def _teach(self, function: CarriedFunction) -> None:
        """Give it a function before the call, unless it has it."""
        if self._taught.has(function.digest):
            return
        in_use = {work.function.digest for work in self.inflight.values() if work.function is not None}
        for parts in self._taught.lesson(function, in_use):
            self._pipe.send(parts)

    def _send_ahead(self) -> None:
        """Tokens first: a child that finds no token skips the call."""
        parts, self._ahead = self._ahead, []
        if parts and not self.ended:
            os.write(self._tokens_w, b"t" * len(parts))
            self._pipe.send_ahead(parts)

    def control(self, frame: Frame) -> None:
        """Send a frame that is no call: a cancel, a credit."""
        self._pipe.send(chunks(frame))

    def take_back(self) -> list[Work]:
        """The calls sent ahead that had not started, in their order; they are nobody's now."""
        behind = len(self.inflight) - 1
        if (behind <= 0 and not self._ahead) or not self.single:
            return []
        unsent, self._ahead = len(self._ahead), []
        taken = 0
        if behind > unsent:
            with contextlib.suppress(BlockingIOError, OSError):
                taken = len(os.read(self._tokens_r, behind - unsent))
        self._skipping += taken
        back = list(self.inflight.values())[len(self.inflight) - taken - unsent :]
        for work in back:
            self._drop(work)
            work.child = None
        return back

    def _drop(self, work: Work) -> None:
        del self.inflight[work.id]
        if not work.short:
            self._long -= 1

    def finish(self, id: bytes) -> Work | None:
        """A reply came: the call it ends, which is no longer in flight."""
        work = self.inflight.get(id)
        if work is not None:
            self._drop(work)
            self.served += 1
            self.head_since = time.monotonic()
        return work

    @property
    def head(self) -> Work | None:
        """The call that is running, or about to."""
        return next(iter(self.inflight.values()), None)

    @property
    def fault(self) -> str:
        """Why its pipe ended, if that was this process's doing."""
        return self._pipe.fault

    def close(self) -> None:
        """Close the pipe: the child ends once it looks at it."""
        self._pipe.close()

    def _received(self, data: Buffer, ahead: bool) -> None:
        head = peek(data)
        if head.kind == FrameKind.SKIPPED:
            self._skipping -= 1
        self._on_frame(self, head, data)

    def _ended(self) -> None:
        self.ended = True
        self._on_end(self)

    def close_tokens(self) -> None:
        """Release the token pipe, once nothing is left to take back."""
        for fd in (self._tokens_r, self._tokens_w):
            if fd >= 0:
                os.close(fd)
        self._tokens_r = self._tokens_w = -1

    def facts(self) -> dict[str, Any]:
        """What an operator wants to know."""
        return {"pid": self.pid, "busy": len(self.inflight), "served": self.served, "retiring": self.retiring}
