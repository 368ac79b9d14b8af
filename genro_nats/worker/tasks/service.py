"""The durable tasks of one pool on one worker: how many are taken, how long they are held, when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from genro_nats.config import PoolOptions
from genro_nats.errors import (
    ConnectionLostError,
    DecodeError,
    ExecutorError,
    SequenceConflictError,
    SignatureError,
    TransportError,
)
from genro_nats.events import Events
from genro_nats.executor.children.pool import ChildPool
from genro_nats.tasks.message import read_message
from genro_nats.tasks.orphans import Sweeper
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.store import StateStore
from genro_nats.tasks.streams import LEVELS, ensure_streams
from genro_nats.transport.clock import ServerClock
from genro_nats.transport.delivery import Delivery, DeliveryInfo
from genro_nats.transport.direct import next_message
from genro_nats.transport.intake import Intake
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import When
from genro_nats.transport.schedules import fired_by
from genro_nats.transport.subjects import NONE, TaskSubjects, is_schedule, pull_inbox
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.tasks.aftermath import Aftermath
from genro_nats.worker.tasks.arguments import Arguments
from genro_nats.worker.tasks.asks import Asks
from genro_nats.worker.tasks.burial import Burial
from genro_nats.worker.tasks.doubt import doubtful, is_copy
from genro_nats.worker.tasks.held import HeldTask
from genro_nats.worker.tasks.quick import QuickTask
from genro_nats.worker.tasks.room import Room
from genro_nats.worker.tasks.settlement import Settlement
from genro_nats.worker.tasks.unreadable import Unreadable
from genro_nats.worker.trust import Trust

__all__ = ["TaskService"]

log: Final = logging.getLogger("genro_nats.worker")

_UNCLAIMED: Final = 0.03  # seconds that a task runs, or waits behind a short call, before it is claimed
_RENEWALS: Final = 3  # per lease
_PATIENCE: Final = 3  # leases
_WAITED: Final = 1.0  # seconds after which a task that was taken ahead and has no child goes back
_MANY: Final = 4
_LISTED: Final = 1.0  # seconds after which a running task is entered in the list of running ones
_LIST_TTL: Final = 15.0  # seconds such an entry stays without being renewed
_LETTING_GO: Final = 1.0  # seconds in which a leaving worker says that others may have what it still holds


class TaskService:
    """Takes tasks as far as the children have room, and holds each until it is settled."""

    def __init__(
        self,
        js: JetStream,
        children: ChildPool,
        options: PoolOptions,
        worker: str,
        events: Events,
        trust: Trust,
        transfer: Callable[[], Transfer],
    ) -> None:
        assert options.subject is not None
        self.worker = worker
        self.pid = os.getpid()
        self.children = children
        self.leaving = False
        self.trust = trust
        self._js = js
        self._options = options
        self._events = events
        self._subjects = TaskSubjects(options.prefix, options.subject)
        self._clock = ServerClock(js, self._subjects.tasks_stream)
        self.store = StateStore(js, self._subjects)
        burial = Burial(js, self._subjects)
        self.shelf = Shelf(js.connection, self._subjects, options, transfer, worker)
        self.arguments = Arguments(self.shelf)
        self._sweeper = Sweeper(js, self._subjects, self.shelf, options.orphan_ttl, self.now)
        self._asks = Asks(
            js, self._subjects, self.store, self.shelf, self._held_task, self.now, options.lease
        )
        self.after = Aftermath(
            js, self._subjects, self.store, self.shelf, self._asks, burial, events, self._spawn
        )
        self._unreadable = Unreadable(
            js, self._subjects, self.store, self._asks, burial, events, self._held_task, self.now
        )
        self._held: dict[str, HeldTask] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._last_looked_up: asyncio.Future[None] | None = None
        self._known = 1 << 62  # the last message that may have been delivered before we could see it
        self._renewed_at = 0.0
        self._claiming: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._intake: Intake | None = None
        self._room: Room | None = None

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Create the streams, carry out what was asked for meanwhile, then take tasks. Can be repeated.

        Raises:
            StreamMismatchError, ServerTooOldError: as their texts say.
            TransportError: no JetStream.
        """
        if self.started:
            return
        try:
            await self._start()
        except BaseException:
            await self._asks.aclose()
            await self._clock.aclose()
            raise

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._restore()
        await self._clock.start()
        await self._asks.start()
        await self._learn()
        stream = self._subjects.tasks_stream
        inbox = pull_inbox(self._options.prefix, self.worker, stream)
        intake = Intake(self._js, stream, LEVELS, inbox, self._taken, restore=self._restore)
        self._room = Room(self.children, intake, self._waiting)
        await intake.start()
        self._js.connection.on_down.append(self._went_down)
        self._js.connection.on_up.append(self._came_back)
        self._intake = intake
        self._sweeper.start()
        self.adjust()

    @property
    def started(self) -> bool:
        """Does it take tasks, or has it?"""
        return self._intake is not None

    async def _restore(self) -> None:
        await ensure_streams(self._js, self._subjects, self._options)

    async def drain(self, timeout: float) -> int:
        """Take no more, finish what is held; how many tasks were left (they go back to the queue)."""
        self.leaving = True
        if self._intake is not None:
            await self._intake.aclose()
        for held in list(self._held.values()):
            held.give_back()
        await self._empty(timeout)
        left = len(self._held)
        await self._let_go()
        return left

    async def _empty(self, timeout: float) -> None:
        """Wait until nothing is held, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._held:
                    self._idle.clear()
                    await self._idle.wait()

    async def _let_go(self) -> None:
        """End what is held; another worker may have it at once."""
        for held in list(self._held.values()):
            held.let_go()
        await self._empty(_LETTING_GO)

    async def aclose(self) -> None:
        """Let go: what is still held goes to another worker. Can be repeated."""
        self.leaving = True
        if self._intake is not None:
            await self._intake.aclose()
        await self._let_go()
        await self._asks.aclose()
        await self._sweeper.aclose()
        await self._clock.aclose()
        if self._room is not None:
            self._room.close()
        if self._claiming is not None:
            self._claiming.cancel()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.shelf.aclose()

    def _went_down(self) -> None:
        self._known = 1 << 62

    def _came_back(self) -> None:
        self._spawn(self._learn())

    async def _learn(self) -> None:
        """What was stored before now may have been given to somebody whom a crash made the server forget."""
        info = await self._js.api(f"STREAM.INFO.{self._subjects.tasks_stream}")
        self._known = info["state"]["last_seq"]

    def facts(self) -> dict[str, Any]:
        """Counters, for an operator."""
        return {**self.after.counts, "held": len(self._held)}

    # -- taking ---------------------------------------------------------------

    def _taken(self, delivery: Delivery) -> None:
        if not self._begun_quick(delivery):
            # From now on those behind it wait for it to begin.
            before, self._last_looked_up = self._last_looked_up, self._loop.create_future()
            self._spawn(self._serve(delivery, before, self._last_looked_up))

    def _begun_quick(self, delivery: Delivery) -> bool:
        """Begin a task in the short way; False: it has to go the usual one."""
        info = delivery.info
        waits = self._last_looked_up is not None and not self._last_looked_up.done()
        if self._is_keyed_run(delivery):
            return False
        if waits or info.num_delivered > 1 or info.stream_seq <= self._known or doubtful(delivery):
            return False
        try:
            task = self._asks.scheduled(read_message(delivery.data, delivery.subject), delivery)
        except DecodeError:
            return False
        if task.is_referred:
            return False
        if task.expires is not None or task.id in self._held or self._asks.is_cancelled(task, delivery):
            return False
        self._look_behind(info)
        held = QuickTask(self, task, delivery, solo=False)
        self._enter(held)
        held.begin_quick()
        self.adjust()
        return True

    async def _serve(
        self, delivery: Delivery, before: asyncio.Future[None] | None, begun: asyncio.Future[None]
    ) -> None:
        try:
            held = await self._received(delivery)
            if held is not None:
                held.before, held.begun = before, begun
                await self._hold(held)
        except SequenceConflictError:
            pass  # somebody else has it, and settles it
        except TransportError as error:
            self._events("task.adrift", subject=delivery.subject, error=str(error))
        finally:
            if not begun.done():
                begun.set_result(None)
            self.adjust()

    async def _received(self, delivery: Delivery) -> HeldTask | None:
        info = delivery.info
        self._look_behind(info)
        try:
            doubt = doubtful(delivery)
            if doubt and delivery.flaw is None and (flaw := await is_copy(self._js, delivery)) is not None:
                delivery.flaw = self._js.connection.guard.refused(delivery.subject, flaw)
            if delivery.flaw is not None:
                raise delivery.flaw.error("A task was not run")
            task = self._asks.scheduled(read_message(delivery.data, delivery.subject), delivery)
        except (DecodeError, SignatureError) as error:
            await self._unreadable.settle(delivery, error)
            return None
        if task.id in self._held:
            return None  # the server forgot that it gave it to us
        solo = doubt or info.num_delivered > 1 or info.stream_seq <= self._known
        held = HeldTask(self, task, delivery, solo=solo)
        held.keyed_run = self._is_keyed_run(delivery)
        return held

    def _is_keyed_run(self, delivery: Delivery) -> bool:
        """Is it a schedule's run with a key?"""
        key = delivery.subject.split(".")[-2]
        return key != NONE and is_schedule(fired_by(delivery.headers))

    async def key_taken(self, delivery: Delivery) -> bool:
        """Is an older task with the key of this one scheduled, queued or running?"""
        key = delivery.subject.split(".")[-2]
        where = self._subjects.of("task", "*", "*", key, "*")
        first = await next_message(self._js, self._subjects.tasks_stream, where)
        return first is not None and first.seq < delivery.info.stream_seq

    async def _hold(self, held: HeldTask) -> None:
        self._enter(held)
        held.cancelled = self._asks.is_cancelled(held.task, held.delivery)
        try:
            await held.serve()
        finally:
            self.left(held)

    def _enter(self, held: HeldTask) -> None:
        self._held[held.task.id] = held
        self.after.counts["tasks"] += 1
        if self._claiming is None:
            self._claiming = self._loop.call_later(_UNCLAIMED, self._claim)

    def left(self, held: HeldTask) -> None:
        """It is settled, or somebody else's: there is room for another one."""
        del self._held[held.task.id]
        held.forget()
        if not self._held:
            self._idle.set()
        if self._room is not None:
            self._room.brief = self.children.is_brief(held.task.function.encode())
        self.adjust()

    def resume(self, held: HeldTask, rest: Coroutine[Any, Any, None]) -> None:
        """A task begun in the short way goes on in the usual one."""
        self._spawn(self._rest(held, rest))

    async def _rest(self, held: HeldTask, rest: Coroutine[Any, Any, None]) -> None:
        try:
            await rest
        except SequenceConflictError:
            pass  # somebody else has it, and settles it
        except TransportError as error:
            self._events("task.adrift", subject=held.delivery.subject, error=str(error))
        finally:
            self.left(held)

    def _claim(self) -> None:
        """Claim what has run for a while, the oldest first; a timer for each would cost more than a short task."""
        latest = self.now() - _UNCLAIMED
        for held in self._held.values():
            if held.started > latest:
                break
            held.claim()
        self._claiming = self._loop.call_later(_UNCLAIMED, self._claim) if self._held else None

    def _held_task(self, id: str) -> HeldTask | None:
        return self._held.get(id)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, TransportError):
            log.warning("something of a task could not be read or stored: %s", error)
        elif error is not None:
            level = logging.WARNING if isinstance(error, ExecutorError) else logging.ERROR
            log.log(level, "a task could not be handled: %s", error, exc_info=error)

    def adjust(self) -> None:
        """There may be room for more, or less of it."""
        if self._room is not None and not self.leaving:
            self._room.adjust()

    def freed(self) -> None:
        """A call that is no task has left the children."""
        if self._room is not None:
            self._room.freed()

    def _waiting(self) -> int:
        # While outcomes can't be stored, no more are brought about than there are children.
        return sum(held.work is None or held.unstored for held in self._held.values())

    def _look_behind(self, info: DeliveryInfo) -> None:
        if self._room is not None:
            self._room.look_behind(info)

    # -- what held tasks ask for ------------------------------------------------

    def now(self) -> float:
        """The server's time."""
        return self._clock.now()

    @property
    def patience(self) -> float:
        """Seconds for which a large outcome is kept while the streams are silent."""
        return _PATIENCE * self._options.lease

    def not_stored(self, held: Settlement, error: TransportError) -> None:
        """The streams don't take what is to be stored of a task; that is tried again."""
        if not held.unstored:
            held.unstored = True
            self._events("task.unstored", task=held.task.id, function=held.task.function, error=str(error))

    def draw(self) -> float:
        """A random number from 0 to 1."""
        return random.random()

    @property
    def when(self) -> When:
        """May what is sent wait a moment for others?"""
        held = len(self._held)
        return When.NOW if held == 1 else When.SOON if held <= _MANY else When.LATER

    # -- time -------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: renew leases, and enter what runs long in the list of running tasks."""
        now = self._loop.time()
        renew = now - self._renewed_at >= self._options.lease / _RENEWALS
        if renew:
            self._renewed_at = now
        self.adjust()  # children may have come or gone
        for held in list(self._held.values()):
            if renew:
                self._renew(held)
            if held.started and (self.leaving or self.now() - held.started >= _WAITED):
                held.give_back()
            listing = held.started and not held.unstored and (renew or not held.listed)
            if listing and self.now() - held.started >= _LISTED:
                held.listed = True
                self._spawn(self.store.note("index", "running", held.task.id, ttl=_LIST_TTL))

    def _renew(self, held: HeldTask) -> None:
        with contextlib.suppress(ConnectionLostError):  # as long as nobody else gets it, the claim holds
            held.delivery.renew()
