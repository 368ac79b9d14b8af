"""One task in a worker's hands, from its delivery to its settlement: the steps, each with one duty.

::

    taken ─▶ what is stored of it? ─▶ meet: run, wait, settle or drop
      run ─▶ claim (compare-and-set) ─▶ child ─▶ outcome ─▶ settle against the claim ─▶ ack

A task that the server never gave to anybody before is claimed only once it has run
for some milliseconds. Nobody else can hold it but after a crash of the server, and
then one of the two loses at its claim or at its outcome. So short tasks cost one
write; what a worker that dies within these milliseconds leaves behind is no death
of the task, because there is no claim that would show it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from genro_nats.codec.blob import is_referred
from genro_nats.codec.frame import Buffer, FrameKind, peek
from genro_nats.errors import (
    DecodeError,
    ExecutorError,
    PayloadLostError,
    PayloadTooLargeError,
    SignatureError,
)
from genro_nats.tasks.meet import Drop, Run, Settle, Wait, meet
from genro_nats.tasks.message import TaskMessage, for_attempt
from genro_nats.tasks.record import Record
from genro_nats.tasks.request import call_id
from genro_nats.tasks.status import TaskState
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.pipe import Parts
from genro_nats.worker.tasks.notes import CHECKPOINT, PROGRESS, Notes
from genro_nats.worker.tasks.settlement import Settlement
from genro_nats.worker.tasks.verdict import Again, End, GoBack, Situation, after_attempt
from genro_nats.worker.tasks.work import Ended, GivenBackError, TaskWork
from genro_nats.worker.trust import error_frame

if TYPE_CHECKING:
    from genro_nats.worker.tasks.service import TaskService

__all__ = ["HeldTask"]

_LARGE_NOTE: Final = 1 << 16  # bytes; smaller ones are copied out of what they came in


class HeldTask(Settlement):
    """A delivered task. ``solo``: somebody may have run it before, so it is looked up.

    ``before``: done once the last one that was looked up has begun; those behind it wait, to
    keep their order. ``begun``: the same of this one.
    """

    __slots__ = (
        "_claim_id",
        "_claiming",
        "_parts",
        "_running",
        "before",
        "begun",
        "cancelled",
        "keyed_run",
        "listed",
        "started",
        "work",
    )

    def __init__(self, service: TaskService, task: TaskMessage, delivery: Delivery, *, solo: bool) -> None:
        super().__init__(service, task, delivery, solo=solo)
        self._parts: Parts | None = None  # the call, where its arguments were stored apart
        self._claim_id = ""
        self._running: Record | None = None
        self._claiming: asyncio.Future[int] | None = None
        self.before: asyncio.Future[None] | None = None
        self.begun: asyncio.Future[None] | None = None
        self.keyed_run = False  # of a schedule: no guard stood before it when the server stored it
        self.cancelled = False
        self.listed = False
        self.started = 0.0  # server time, once it runs
        self.work: TaskWork | None = None

    # -- the way of a task ----------------------------------------------------

    async def serve(self) -> None:
        """From delivery to settlement. Raises SequenceConflictError if somebody else holds it now."""
        try:
            if self.solo:
                await self._look()
        except (DecodeError, SignatureError) as error:
            self._seq = error.seq
            await self._end(self._base(0), TaskState.FAILED, str(error))
            return
        if self.keyed_run and self._record is None and await self._service.key_taken(self.delivery):
            await self._end(self._base(0), TaskState.CANCELLED, "another task has its key")
            return
        verdict = meet(
            self._record,
            now=self._service.now(),
            expires_at=self._expires_at(),
            cancelled=self.cancelled,
        )
        match verdict:
            case Run() if self.task.is_referred and not self._service.trust.refuses(self.task.head.flags):
                await self._run_large(verdict.deaths)
            case Run():
                await self._run(verdict.deaths)
            case Wait():
                await self.delivery.nak(verdict.delay)
            case Settle():
                await self._end(self._base(verdict.deaths), verdict.state, verdict.reason)
            case Drop():
                await self._service.store.unnote("checkpoint", self.task.id)
                await self.delivery.ack()
                await self._service.after.used(self.task)

    async def _look(self) -> None:
        """What is stored of it, if it was begun before."""
        stored = await self._service.store.load(self.task.id)
        if stored is None:
            return
        self._record, self._seq = stored.record, stored.seq
        if not stored.settled:
            self._checkpoint, self._checkpoint_seq = await self._service.store.checkpoint(self.task.id)

    async def _run_large(self, deaths: int) -> None:
        """Read the arguments first: a worker that dies meanwhile has not begun the task."""
        self.pass_on()
        attempt = 1 if self._record is None else self._record.attempts + 1
        try:
            async with self._service.arguments.reserved(self.task):
                checkpoint = await self._checkpointed()
                self._parts = await self._service.arguments.read(self.task, attempt, checkpoint)
                await self._run(deaths)
        except (DecodeError, PayloadTooLargeError, PayloadLostError) as error:
            if self.work is not None:
                raise
            await self._unreadable(deaths, error)

    async def _checkpointed(self) -> Buffer | None:
        """What an earlier attempt left, wherever that is stored."""
        if self._checkpoint is None or not is_referred(self._checkpoint):
            return self._checkpoint
        return (await self._service.shelf.frame(self._checkpoint)).body

    async def _unreadable(self, deaths: int, error: ExecutorError) -> None:
        """What was stored of it apart can't be had, or is not what it should be."""
        frame = error_frame(self.task.call_id, error, self.task.head.flags)
        await self._end(
            self._base(deaths), TaskState.FAILED, "what was stored of it is lost", frame, str(error)
        )

    async def _run(self, deaths: int) -> None:
        claim = self._claim(deaths)
        if self._parts is None and (claim.attempts > 1 or self._checkpoint is not None):
            try:
                self._parts = for_attempt(self.task, claim.attempts, await self._checkpointed())
            except (DecodeError, PayloadTooLargeError, PayloadLostError) as error:
                await self._unreadable(deaths, error)
                return
        if self.solo:
            self._seq = await self._save(claim)
        else:
            self._running = claim
        if self.before is not None and not self.before.done():
            await asyncio.wait([self.before])
        self._begin(claim)
        self.pass_on()
        assert self.work is not None
        ended = await self.work.outcome
        if self._claiming is not None:
            self._seq = await self._claiming
        if self._notes is not None:
            await self._notes.stored()
        self._running = None
        await self._ended(claim, ended)

    def pass_on(self) -> None:
        """Those that came behind it may begin."""
        if self.begun is not None and not self.begun.done():
            self.begun.set_result(None)

    def claim(self) -> None:
        """It runs for a while: say so, unless that was said."""
        child = None if self.work is None else self.work.child
        waits = child is None or (child.single and child.head is not self.work)
        if waits or self._running is None or self._claiming is not None or self._seq:
            return
        self._claiming = asyncio.ensure_future(self._insist(partial(self._save, self._running)))
        self._claiming.add_done_callback(self._claimed)

    def _claim(self, deaths: int) -> Record:
        """A new attempt's record."""
        claim = self._base(deaths)
        claim.state = TaskState.RUNNING
        claim.attempts += 1
        claim.claim = self._claim_id = os.urandom(8).hex()
        claim.worker = self._service.worker
        claim.pid = self._service.pid
        claim.started_at = self.started = self._service.now()
        claim.next_retry_at = None
        claim.error = ""
        return claim

    def _claimed(self, claiming: asyncio.Future[int]) -> None:
        """The claim of a task that runs already: if it was lost, so is the run."""
        error = None if claiming.cancelled() else claiming.exception()
        if error is not None and self.work is not None and not self.work.outcome.done():
            self._service.children.cancel(self.work, ExecutorError(f"The claim was lost: {error}"))

    def _begin(self, claim: Record, ended: Callable[[Ended], object] | None = None) -> None:
        """Give it to the children, unless it was cancelled while it was claimed."""
        task, seconds = self.task, self.task.head.seconds
        loop = asyncio.get_running_loop()
        parts: Parts = [task.data]
        if self._parts is not None:
            parts, self._parts = self._parts, None
        elif task.id_differs:
            parts = for_attempt(task, claim.attempts, None)
        deadline = inf if seconds == inf else loop.time() + seconds
        self.work = TaskWork(
            call_id(task.id), parts, task.function.encode(), self._heard, deadline=deadline, ended=ended
        )
        self.work.solo = self.solo
        self.work.large = task.is_referred
        if self.cancelled:
            self.work.failed(ExecutorError("The task was cancelled."))
            return
        if self._service.leaving:
            self.work.failed(GivenBackError("The worker leaves.", began=False))
            return
        if (refused := self._service.trust.check(task.head.flags)) is not None:
            self.work.failed(refused)
            return
        self._service.children.run(self.work)
        child = self.work.child
        claim.alone = child is None or child.head is self.work or not child.single

    def _heard(self, kind: int, data: Buffer) -> None:
        self.claim()  # who shows progress is seen to run
        if kind == FrameKind.PROGRESS:
            self._note(PROGRESS, data)
        elif kind == FrameKind.CHECKPOINT:
            self._has_checkpoint = True
            self._note(CHECKPOINT, _body(data))

    def _note(self, what: str, data: Buffer) -> None:
        if self._notes is None:
            task, service = self.task, self._service
            self._notes = Notes(
                service.store, service.shelf, task.id, task.ttl, self._checkpoint_seq, self._is_mine
            )
        self._notes.put(what, data if len(data) > _LARGE_NOTE else bytes(data))

    async def _is_mine(self) -> bool:
        """Has nobody else claimed it, as far as is stored?"""
        stored = await self._service.store.load(self.task.id)
        return stored is None or stored.record.claim == self._claim_id

    def give_back(self) -> None:
        """Let another worker have it, if it still waits for a child here."""
        work = self.work
        if work is not None and work.child is None and not work.done:
            error = GivenBackError("It waited too long for a child.", began=False)
            self._service.children.cancel(work, error)

    def let_go(self) -> None:
        """Let another worker have it: what runs of it is ended."""
        self.give_back()
        if self.work is not None and not self.work.done:
            self._service.children.cancel(self.work, GivenBackError("The worker left.", began=True))

    def cancel(self) -> None:
        """Its cancelling is asked for: it never begins, or is asked to end and after a grace time ended."""
        self.cancelled = True
        # Who settles what waits may take it for that. Unclaimed, its end could come when that is read and deleted
        # already, and would be stored as the end of the next task with its id.
        self.claim()
        if self.work is not None and not self.work.done:
            self._service.children.ask(self.work, ExecutorError("The task was cancelled."))

    def forget(self) -> None:
        """It is held no more: let go of its outcome, which else stays until cycles are collected, long after."""
        self.work = self._notes = None

    # -- how it goes on after an attempt ---------------------------------------

    async def _ended(self, claim: Record, ended: Ended) -> None:
        service = self._service
        if ended.kind == FrameKind.ERROR and ended.frame:
            service.trust.note(ended.frame)
        situation = Situation(
            policy=self.task.policy,
            cancelled=self.cancelled,
            leaving=service.leaving,
            stored=bool(self._seq),
            now=service.now(),
            draw=service.draw(),
        )
        match after_attempt(claim, ended, situation):
            case End(state, reason, frame, error):
                await self._end(claim, state, reason, frame, error)
            case Again(record, delay):
                await self._again(record, delay)
            case GoBack():
                await self.delivery.nak()

    async def _again(self, record: Record, delay: float) -> None:
        """Back to the queue, to be run by anybody after ``delay`` seconds."""
        self._seq = await self._insist(partial(self._save, record))
        await self.delivery.nak(delay)
        self._service.after.rerun(self.task, record, delay)


def _body(data: Buffer) -> Buffer:
    head = peek(data)
    return memoryview(data)[len(data) - head.n_body :]
