"""Calls in, frames out: the queue of a pool of children, and what ends a call early.

Everything here happens in one event loop. ``run(work)`` gives a call to the
best child or queues it; replies reach the work itself. The local process
executor and the NATS worker both stand on this.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, Head
from genro_nats.errors import CallTimeoutError, ExecutorClosedError, ExecutorError, WorkerLostError
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.choice import LOW, STALL, ShortCalls, choose, room
from genro_nats.executor.children.memory import MemoryWatch
from genro_nats.executor.children.plan import PoolPlan
from genro_nats.executor.children.roster import Roster
from genro_nats.executor.children.start import start_roster
from genro_nats.executor.children.work import Work

__all__ = ["ChildPool", "PoolPlan"]

_NEIGHBOURS: Final = 10.0  # seconds that neighbours of a call that would not end get to finish


class ChildPool:
    """The children of one pool and the calls that wait for them."""

    def __init__(self, plan: PoolPlan) -> None:
        self.plan = plan
        self.queue: OrderedDict[Work, None] = OrderedDict()  # callers leave it from anywhere in the line
        self.on_wait: Callable[[], object] | None = None  # a call waits, or is far behind others in a child
        self.on_room: Callable[[], object] | None = None  # there may be a free child
        self._short = ShortCalls()
        self._stall_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._drained = asyncio.Event()
        self._memory: MemoryWatch | None = None
        self.seconds = 0.0  # that calls have run, altogether
        self.when_starved: Callable[[Exception], object] | None = None
        self.roster = Roster(plan, self)

    async def start(self) -> None:
        """Start the children; returns when they are ready. Raises as ``Roster.start``."""
        self._loop = asyncio.get_running_loop()
        try:
            await start_roster(self)
        except BaseException:
            await self.aclose()
            raise
        if self.plan.memory_limit is not None:
            self._memory = MemoryWatch(self, self.plan.memory_limit)

    async def renew(self) -> None:
        """Replace the children by ones with freshly imported code. Raises as ``renewal.renew``."""
        await self.roster.renew()

    async def aclose(self, error: ExecutorError | None = None) -> None:
        """End all children; calls still in hand end with ``error`` (ExecutorClosedError)."""
        if self._closed:
            return
        self._closed = True
        if error is None:
            error = ExecutorClosedError(
                f"The executor '{self.plan.name}' was shut down.", executor=self.plan.name
            )
        works = [*self.queue, *(w for child in self.roster.children for w in child.inflight.values())]
        self.queue.clear()
        for work in works:
            self._fail(work, error)
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self._memory is not None:
            self._memory.close()
        await self.roster.aclose()

    def abandon(self) -> None:
        """Kill everything at once, for an owner whose event loop is gone."""
        self._closed = True
        self.roster.abandon()

    async def drained(self) -> None:
        """Wait until nothing is queued or running."""
        while not self.idle:
            self._drained.clear()
            await self._drained.wait()

    @property
    def idle(self) -> bool:
        """Is nothing queued or running?"""
        return not self.queue and not any(child.inflight for child in self.roster.children)

    # -- calls --------------------------------------------------------------

    def run(self, work: Work, *, first: bool = False) -> None:
        """Give a call to a child now, or when one is free; ``first``: before those that wait."""
        if self._closed:
            work.failed(
                ExecutorClosedError(f"The executor '{self.plan.name}' is closed.", executor=self.plan.name)
            )
            return
        if work.deadline != inf:
            seconds = round(work.deadline - self._loop.time(), 3)
            if seconds <= 0:
                self._expired(work, seconds)
                return
            work.timer = self._loop.call_at(work.deadline, self._expired, work, seconds)
        work.short = not work.stream and not work.large and self.is_short(work.key)
        child = choose(self.roster.active, work.may_wait) if first or not self.queue else None
        if child is None:
            self.queue[work] = None
            if first:
                self.queue.move_to_end(work, last=False)
        else:
            self._send(child, work)
        if self.on_wait is not None and (child is None or len(child.inflight) > LOW):
            self.on_wait()

    def cancel(self, work: Work, error: ExecutorError) -> None:
        """End a call now: its caller gets ``error`` at once, the child is freed as its kind allows."""
        if work.done:
            return
        child = work.child
        self._fail(work, error)
        if child is None:
            self.queue.pop(work, None)
        elif child.single and not work.stream:
            self._free(child, work)
        else:
            child.control(Frame(FrameKind.CANCEL, work.id))
            self._loop.call_later(self.plan.cancel_grace, self._insist, child, work)

    def ask(self, work: Work, error: ExecutorError) -> None:
        """Ask a running call to end by itself; after ``cancel_grace`` seconds it is ended as by ``cancel``."""
        child = work.child
        if child is not None and child.head is not work:
            self.on_unstarted(child.take_back())
        if work.done or work.child is None:
            self.cancel(work, error)
            return
        self.control(work, Frame(FrameKind.CANCEL, work.id))
        self._loop.call_later(self.plan.cancel_grace, self.cancel, work, error)

    def is_short(self, key: bytes) -> bool:
        """Are calls of this function seen to be so short that they are sent ahead?"""
        return self._short.is_short(key)

    def is_brief(self, key: bytes) -> bool:
        """Do calls of this function end so soon that some of them may wait here?"""
        return self._short.is_brief(key)

    @property
    def all_brief(self) -> bool:
        """Does everything that the children have in hand end soon, as far as is known?"""
        active = self.roster.active
        return all(self._short.is_brief(work.key) for child in active for work in child.inflight.values())

    @property
    def all_short(self) -> bool:
        """Is everything that the children have in hand expected to be short?"""
        return all(child.all_short for child in self.roster.active)

    @property
    def slots(self) -> int:
        """Calls that can run at the same time."""
        return sum(child.slots for child in self.roster.active)

    def room(self, ahead: bool = False) -> int:
        """How many more calls could begin at once; with ``ahead``, how many more it is worth to have here."""
        able = (child for child in self.roster.active if not (child.leaving or child.crowded))
        slots = (child.ahead if ahead else child.slots for child in able)
        return sum(slots) - sum(len(child.inflight) for child in self.roster.active) - len(self.queue)

    @property
    def surplus(self) -> int:
        """Calls that others could begin sooner: those queued, and those far behind others in a child."""
        behind = sum(max(0, len(child.inflight) - LOW) for child in self.roster.active if child.single)
        return len(self.queue) + behind

    def recall(self) -> None:
        """Queue what is far behind others in a child, for somebody who has a free one; see ``on_capacity``."""
        child = max(self.roster.active, key=lambda child: len(child.inflight), default=None)
        if child is not None and len(child.inflight) > LOW:
            self.on_unstarted(child.take_back())

    def part_with(self, work: Work) -> None:
        """A queued call is somebody else's now."""
        self.queue.pop(work, None)
        self._settle(work)

    def control(self, work: Work, frame: Frame) -> None:
        """Send a frame to the child that runs this call, if one does."""
        if work.child is not None:
            work.child.control(frame)

    def _expired(self, work: Work, seconds: float) -> None:
        name, late = work.key.decode(errors="replace"), seconds <= 0 and work.stated is None
        limit = seconds if work.stated is None else work.stated
        text = f"{name} came after its deadline." if late else f"{name} was not done within {limit:g} s."
        self.cancel(work, CallTimeoutError(text, timeout=limit, function=name))

    def _fail(self, work: Work, error: Exception) -> None:
        if not work.done:
            self._settle(work)
            work.failed(error)

    def _settle(self, work: Work) -> None:
        work.done = True
        work.parts = ()  # an error's traceback holds the call, and would hold its data
        self._drained.set()
        if work.timer is not None:
            work.timer.cancel()
            work.timer = None

    # -- giving out ---------------------------------------------------------

    def _send(self, child: Child, work: Work) -> None:
        child.send(work)
        if self._stall_timer is None and child.single and len(child.inflight) > 1:
            self._watch_stalls()

    def _refill(self, child: Child) -> None:
        queue = self.queue
        while queue and room(child, next(iter(queue)).may_wait):
            self._send(child, queue.popitem(last=False)[0])

    def on_capacity(self) -> None:
        """There may be room: give out what waits."""
        while self.queue:
            child = choose(self.roster.active, next(iter(self.queue)).may_wait)
            if child is None:
                return
            self._send(child, self.queue.popitem(last=False)[0])
        if self.on_room is not None:
            self.on_room()

    def _watch_stalls(self) -> None:
        self._stall_timer = self._loop.call_later(STALL, self._look_for_stalls)

    def _look_for_stalls(self) -> None:
        """Take calls back from behind one that runs long."""
        self._stall_timer = None
        now = self._loop.time()
        for child in list(self.roster.active):
            if len(child.inflight) > 1 and now - child.head_since >= STALL:
                self.on_unstarted(child.take_back())
        self.on_capacity()
        if self._stall_timer is None and any(len(c.inflight) > 1 and c.single for c in self.roster.active):
            self._watch_stalls()

    def on_unstarted(self, works: Sequence[Work]) -> None:
        """Back to the front of the queue: they had not started."""
        for work in reversed(works):
            if not work.done:
                work.short = False
                self.queue[work] = None
                self.queue.move_to_end(work, last=False)
        if self.queue and self.on_wait is not None:
            self.on_wait()

    def take_unstarted(self) -> list[Work]:
        """Every call that has not started, sent ahead or queued, in order; they are nobody's now.

        Their deadlines end nothing any more: who takes them says what becomes of them.
        """
        works = [work for child in self.roster.children for work in child.take_back()]
        works += self.queue
        self.queue.clear()
        for work in works:
            if work.timer is not None:
                work.timer.cancel()
                work.timer = None
        self._drained.set()
        return [work for work in works if not work.done]

    # -- what children say --------------------------------------------------

    def on_frame(self, child: Child, head: Head, data: Buffer) -> None:
        """A child sent a frame."""
        kind = head.kind
        if kind == FrameKind.REPLY or kind == FrameKind.ERROR:
            work = child.finish(head.id)
            if work is not None:
                self._answered(work, head, data)
                self._next(child, head.flags)
                self._drained.set()
                if self.on_room is not None:
                    self.on_room()
        elif kind == FrameKind.SKIPPED:
            self._refill(child)
        elif kind == FrameKind.HELLO:
            self.roster.hello(child)
        elif (running := child.inflight.get(head.id)) and not running.done:
            running.received(kind, data)

    def _answered(self, work: Work, head: Head, data: Buffer) -> None:
        self.seconds += head.seconds
        if not work.stream and not work.large:
            self._short.record(work.key, head.seconds)
        if not work.done:
            self._settle(work)
            work.received(head.kind, data)

    def _next(self, child: Child, flags: int) -> None:
        """A child has finished a call: what now?"""
        if not child.ready:
            return
        self.roster.served(child)
        if flags & Flag.RETIRE and not child.outworn:
            self.roster.retire_soon(child)
        if child.doomed is not None and self._still_doomed(child):
            return
        if child.retiring:
            self.roster.let_go(child)
        elif child.worn_out:
            self.roster.retire(child)
        elif child.crowded and self._memory is not None:
            self._memory.look(child)
        elif self.queue and (not child.single or len(child.inflight) <= LOW):
            self._refill(child)

    def on_orphans(self, works: Sequence[Work], error: WorkerLostError) -> None:
        """These were running in a child that died."""
        for work in works:
            self._fail(work, error)
        self._drained.set()

    def on_starved(self, error: Exception) -> None:
        """There is no child, and none can be started: waiting calls would wait for ever."""
        if self.roster.active:
            return
        if self.when_starved is not None:
            self.when_starved(error)
            return
        works, self.queue = self.queue, OrderedDict()
        for work in works:
            self._fail(work, ExecutorError(f"The pool '{self.plan.name}' has no children left: {error}"))

    # -- ending what runs ---------------------------------------------------

    def _free(self, child: Child, work: Work) -> None:
        """Free a single-threaded child from a call whose caller has gone."""
        self.on_unstarted(child.take_back())
        if work.id not in child.inflight:
            self.on_capacity()
        elif len(child.inflight) > 1:
            # It has gone on past the call at the head, whose reply is under way.
            child.doomed = work
        else:
            self.roster.kill(child)

    def _still_doomed(self, child: Child) -> bool:
        """Does it hold calls whose callers have gone? It is ended once it holds nothing else."""
        gone = any(work.done for work in child.inflight.values())
        if not gone:
            child.doomed = None
        elif not child.single:
            self.roster.let_go(child)
        elif len(child.inflight) == 1:
            self.roster.kill(child)
        return gone

    def _insist(self, child: Child, work: Work) -> None:
        """A shared child did not end a call it was asked to: replace it, once its neighbours are done."""
        if work.id not in child.inflight or child.ended:
            return
        self.plan.on_event("call.stuck", pid=child.pid, function=work.key.decode(errors="replace"))
        child.doomed = work
        self.roster.retire(child)
        self._loop.call_later(_NEIGHBOURS, self.roster.kill, child)

    def facts(self) -> dict[str, Any]:
        """What an operator wants to know."""
        return {
            "queued": len(self.queue),
            "busy": sum(len(child.inflight) for child in self.roster.active),
            "children": [child.facts() for child in self.roster.active],
            "lost": self.roster.lost,
        }
