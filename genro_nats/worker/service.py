"""One pool served over NATS: calls from its subject to children, frames back to callers.

The worker's parent reads headers and passes bytes on; it never unpickles what
came from the wire.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from typing import Any, Final

from genro_nats.codec.frame import (
    KNOWN_FLAGS,
    Buffer,
    Flag,
    Frame,
    FrameKind,
    Head,
    check,
    encode,
    name_of,
    peek,
)
from genro_nats.codec.reference import Reference
from genro_nats.config import PoolOptions
from genro_nats.errors import (
    CodecError,
    ConnectionLostError,
    DecodeError,
    ExecutorError,
    TransportError,
    WorkerLostError,
)
from genro_nats.events import Events
from genro_nats.executor.children.pool import ChildPool
from genro_nats.executor.process_engine import pool_plan
from genro_nats.transport.nats import Connection, Message, Subscription
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.subjects import QUEUE_GROUP, caller_inbox, pool_subjects
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.balance.balance import Balance
from genro_nats.worker.balance.decisions import PATIENCE, Fate, fate
from genro_nats.worker.callers import unknown_flags
from genro_nats.worker.control import Control
from genro_nats.worker.functions import FunctionShelf
from genro_nats.worker.intake import pull_call, reference_in, require_size, room_for
from genro_nats.worker.outlet import Outlet
from genro_nats.worker.remote_work import RemoteWork
from genro_nats.worker.tasks.work import GivenBackError
from genro_nats.worker.trust import Trust, error_frame, flags_in
from genro_nats.worker.waiting import give_function, needed_function

__all__ = ["PoolService"]

log: Final = logging.getLogger("genro_nats.worker")

_UNKNOWN: Final = ~KNOWN_FLAGS
_REFUSE: Final = Fate.REFUSE
BEAT: Final = 1.0  # seconds between two beats for a call, and before its first
_START_RETRIES: Final = 3


def _children(options: PoolOptions, kind: str, events: Events) -> ChildPool:
    name = str(options.subject)
    plan = pool_plan(options, name=name, kind=kind, address=f"{options.prefix}.{name}", on_event=events)
    return ChildPool(replace(plan, start_retries=_START_RETRIES))


class PoolService:
    """Serves one pool from start to drain."""

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        transfer: Transfer,
        functions: FunctionShelf,
        options: PoolOptions,
        kind: str,
        events: Events,
    ) -> None:
        assert options.subject is not None
        self._loop = asyncio.get_running_loop()  # it is ticked while other pools are still being started
        self.subject = options.subject
        self._connection = connection
        self._outbox = outbox
        self._transfer = transfer
        self.trust = Trust(options.only_registered, events)
        self._functions = functions
        self._size_limit = options.max_payload_size
        self._max_calls, self._max_bytes = options.max_backlog, options.max_backlog_size
        self._outlet = Outlet(connection, outbox, transfer, options)
        self._events = events
        self._callers = caller_inbox(options.prefix, "")[:-1]  # what the reply subjects of calls begin with
        self._subjects = pool_subjects(options.prefix, options.subject)
        self.kind = kind
        self.children = _children(options, kind, events)
        self._works: dict[bytes, RemoteWork] = {}
        self._bytes = 0
        self._calls: Subscription
        self.balance = Balance(connection, self._subjects.peers, self)
        self._idle = asyncio.Event()
        self.on_freed: Callable[[], object] = _nothing
        self.starved: Exception | None = None  # why there are no children any more
        self.counts = {"calls": 0, "completed": 0, "failed": 0, "rejected": 0, "refused": 0}
        self._asked = Control(
            self._works,
            self.children,
            self.balance.giving,
            functions,
            self._outlet,
            outbox,
            self.counts,
            events,
        )
        self.control, self.obey = self._asked.heard, self._asked.obey

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Start the children, then take calls. Raises what keeps a child from starting."""
        await self.children.start()
        self._connection.on_down.append(self._break_streams)
        await self._connection.subscribe(self._subjects.control, self.control)
        await self.balance.start()
        self._calls = await self._connection.subscribe(
            self._subjects.call, self.called, QUEUE_GROUP, flawed=self._distrusted
        )

    async def drain(self, timeout: float) -> int:
        """Stop taking calls and finish those in hand; how many were left at the timeout (seconds)."""
        # Cancels and questions are still heard: only the calls are left to others.
        await self._connection.unsubscribe(self._calls)
        await self.balance.leave()
        if self.starved is not None:
            self._bounce()
        elif len(self.balance.peers):
            self._bounce(queued=True)
        try:
            async with asyncio.timeout(timeout):
                while self._works:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            self._bounce()
        return len(self._works)

    def _bounce(self, *, queued: bool = False) -> None:
        """Tell the callers of calls that have not started that another worker should take them.

        ``queued``: only of those that no child has been sent; tasks stay.
        """
        for waiting in [work for work in self._works.values() if work.child is None]:
            self._turn_away(waiting)
        for work in () if queued else self.children.take_unstarted():
            if isinstance(work, RemoteWork):
                self._turn_away(work)
            else:
                work.done = True
                work.failed(GivenBackError("The worker leaves.", began=False))

    def _turn_away(self, work: RemoteWork, flags: int = 0) -> None:
        """A call that no child has begun is not run here."""
        self.children.part_with(work)
        self.refuse(work.reply, work.id, flags)
        self._forget(work)

    def handed_on(self, work: RemoteWork) -> None:
        """Another worker has it now."""
        self._forget(work)

    @property
    def in_hand(self) -> int:
        """Calls accepted and not answered."""
        return len(self._works)

    @property
    def streaming(self) -> bool:
        """Is a stream open?"""
        return any(work.stream for work in self._works.values())

    def _break_streams(self) -> None:
        """Items may be lost with the connection, and a stream with a gap must not go on."""
        for work in list(self._works.values()):
            if work.stream:
                self._outlet.unwanted(work.id, ended=False)
                self.children.cancel(
                    work,
                    ConnectionLostError(
                        "The worker's connection to the NATS server was lost while a stream ran: "
                        "items may be missing.",
                        url=self._connection.shown,
                    ),
                )

    async def settled(self, timeout: float, aborting: asyncio.Event) -> None:
        """As ``Outlet.settled``."""
        await self._outlet.settled(timeout, aborting)

    async def aclose(self) -> None:
        """End the children; what had not started moves on, who still waits for the rest is told."""
        self.balance.aclose()
        self._bounce()
        await self.children.aclose(
            WorkerLostError(f"The worker of {self.subject!r} was shut down while it ran the call.")
        )
        self._outlet.aclose()

    def facts(self) -> dict[str, Any]:
        """Counters, queue and children, for an operator."""
        children = self.children
        return {
            "subject": self.subject,
            "kind": self.kind,
            "slots": children.slots,
            **self.counts,
            "seconds": round(children.seconds, 6),
            **self.trust.facts(),
            **self.balance.facts(),
            **children.facts(),
        }

    # -- calls --------------------------------------------------------------

    def called(self, message: Message, came: float | None = None) -> None:
        """A call from its caller; or from another worker, to which it ``came`` at that event loop time."""
        try:
            head = self._head(message)
            reference = needed = None
            if head.flags & Flag.REFERRED:
                reference = reference_in(message.data, self._size_limit)
            elif head.flags & Flag.BY_DIGEST:
                needed = needed_function(message.data, head)
        except CodecError as error:
            self._reject(message, error)
            return
        if self._asked.is_cancelled(head.id) or head.id in self._works:
            return
        self.counts["calls"] += 1
        size = reference.size if reference is not None else len(message.data)
        fits = room_for(size, self._bytes + self._transfer.owner.size, self._max_bytes)
        may_queue = not head.flags & Flag.NO_QUEUE
        if fate(held=len(self._works), limit=self._max_calls, fits=fits, may_queue=may_queue) is _REFUSE:
            self.refuse(message.reply, head.id, head.flags & Flag.NO_QUEUE)
            return
        work = RemoteWork(self, message, head, self._loop.time(), size)
        if came is not None:
            work.came = came
        self._works[head.id] = work
        self._bytes += work.size
        if needed is not None:
            work.function = self._functions.get(needed.digest)
        work.large = reference is not None
        self._begin(work, lacking=needed is not None and work.function is None)

    def _head(self, message: Message) -> Head:
        """The header of a call. Raises CodecError for what is none, or none for this worker."""
        head = check(message.data)
        require_size(len(message.data), self._size_limit)
        if head.kind != FrameKind.CALL:
            raise DecodeError(f"A message of kind {head.kind} where calls are expected.", id=head.id)
        if head.flags & _UNKNOWN:
            raise unknown_flags(head)
        if isnan(head.seconds):
            raise DecodeError("A call whose time left is not a number.", id=head.id)
        if not message.reply.startswith(self._callers):
            raise DecodeError("A call whose reply subject is no caller's.", id=head.id)
        if message.reply[-33:] != "." + head.id.hex():
            raise DecodeError("A call whose reply subject does not end in its id.", id=head.id)
        if self.trust.strict:
            self.trust.require(head.flags)
        return head

    def _begin(self, work: RemoteWork, lacking: bool) -> None:
        """Run a call, or get first what it lacks; a large one may wait for who is to have its arguments."""
        if work.large and self.balance.giving.keep(work):
            if work.urgent:
                self._loop.call_later(PATIENCE, self._give_up, work)
        elif work.large or lacking:
            self.admit(work)
        else:
            self._run(work)

    def admit(self, work: RemoteWork) -> None:
        """A call is to run here: get what it lacks, its arguments or its function."""
        reference = reference_in(work.announced, self._size_limit) if work.announced else None
        work.pulling = self._loop.create_task(self._pull(work, reference, work.announced))

    def _run(self, work: RemoteWork) -> None:
        self.children.run(work, first=work.hops > 0)
        if work.urgent and work.child is None and not work.done:
            self._loop.call_later(PATIENCE, self._give_up, work)

    def _give_up(self, work: RemoteWork) -> None:
        """No child was free in time for a call that must not queue."""
        if work.child is None and work.pulling is None and not work.done:
            self._turn_away(work, Flag.NO_QUEUE)

    async def _pull(self, work: RemoteWork, reference: Reference | None, announced: bytes) -> None:
        """Get a call's arguments and function, then run it."""
        try:
            if reference is not None:
                work.parts = await pull_call(self._transfer, reference, announced, work.deadline)
            await give_function(work, self._functions, work.reply, self._size_limit)
        except (ExecutorError, OSError) as error:
            work.pulling = None
            error.__traceback__ = None  # it holds this frame, and the arguments as far as they came
            if isinstance(error, TimeoutError):
                self._run(work)  # it says that the deadline has passed
            else:
                named = _not_begun(work, error)
                if reference is not None:
                    named.fields["payload"] = reference.payload.hex()  # so that its caller knows which it was
                self.children.cancel(work, named)
            return
        work.pulling = None
        self._run(work)

    def _distrusted(self, message: Message) -> None:
        """Answer a call that must not be believed, but for a replay: its caller has its answer, or waits for it."""
        assert message.flaw is not None
        if message.flaw.reason == "replayed":
            self.counts["rejected"] += 1
        else:
            self._reject(message, message.flaw.error(f"A worker of {self.subject!r} did not take the call"))

    def _reject(self, message: Message, error: CodecError) -> None:
        """Answer what is no call; the id in its reply subject tells the caller which."""
        self.counts["rejected"] += 1
        self._events("call.rejected", subject=message.subject, bytes=len(message.data), error=str(error))
        if not message.reply.startswith(self._callers):
            return  # our answer, sealed with our key, might be a wish there
        try:
            id = bytes.fromhex(message.reply.rpartition(".")[2])
        except ValueError:
            id = bytes(16)
        frame = error_frame(id if len(id) == 16 else bytes(16), error, flags_in(message.data))
        self._outbox.post(message.reply, message.reply, frame)

    def refuse(self, reply: str, id: bytes, flags: int = 0) -> None:
        """Tell a caller that its call is not run here."""
        self.counts["refused"] += 1
        self._outbox.post(reply, reply, encode(Frame(FrameKind.REFUSED, id, flags=flags)))

    def post(self, work: RemoteWork, frame: Buffer) -> None:
        """Send an item or progress to a call's caller."""
        self._outlet.item(work.id, work.caller, work.reply, frame)

    def answer(self, work: RemoteWork, frame: Buffer) -> None:
        """Send a call's outcome, and keep it until the caller has it."""
        if len(frame) > self._size_limit:
            frame = error_frame(work.id, self._outlet.too_large(work.key, frame), work.flags)
        if frame[3] == FrameKind.REPLY:
            self.counts["completed"] += 1
        else:
            self._failed(work, frame)
        alone = len(self._works) <= 1
        self._outlet.outcome(work.id, work.caller, work.reply, frame, alone=alone)
        self._forget(work)

    def _failed(self, work: RemoteWork, frame: Buffer) -> None:
        self.counts["failed"] += 1
        self.trust.note(frame)
        error = name_of(frame, peek(frame)).decode(errors="replace")
        function = work.key.decode(errors="replace")
        self._events("call.failed", function=function, error=error, call=work.id.hex())

    def _forget(self, work: RemoteWork) -> None:
        if self._works.get(work.id) is work:  # not what it was before it was handed on and came back
            del self._works[work.id]
            self._bytes -= work.size
            self.balance.giving.drop(work)
            self.on_freed()
        if work.pulling is not None:
            work.pulling.cancel()
            work.pulling = None
        if not self._works:
            self._idle.set()

    def tick(self) -> None:
        """Once a second: beat for calls that take long, send again what was not acknowledged."""
        now = self._loop.time()
        self._asked.beat([work for work in self._works.values() if now - work.since >= BEAT])
        self._outlet.sweep()
        self.balance.tick()


def _not_begun(work: RemoteWork, error: ExecutorError | OSError) -> ExecutorError:
    """Why a call was not begun: what it needs can't be had."""
    if not isinstance(error, ExecutorError):
        return ExecutorError(f"No memory: {error}")
    if type(error) not in (ConnectionLostError, TransportError):
        return error
    name = work.key.decode(errors="replace")
    text = f"{name} was not begun, since its arguments could not be pulled from its caller: {error}"
    return type(error)(text, **error.fields)


def _nothing() -> None:
    pass
