"""Waiting for tasks without asking: the server tells each state once it is stored.

One subscription hears of all tasks that this pool instance enqueued; a task of
somebody else has one of its own while it is waited for. What was told while
the connection was down is read afterwards, for those that are waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from genro_nats.codec.signing import Flaw
from genro_nats.errors import DecodeError, ExecutorError, PermissionDeniedError, TaskNotFoundError
from genro_nats.tasks.record import Stored
from genro_nats.tasks.store import StateStore
from genro_nats.transport.direct import StoredMessage, get_last, multi_last
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Message, Subscription
from genro_nats.transport.subjects import TaskSubjects, from_token, is_made_up, owner_tokens

__all__ = ["Outcomes"]

log: Final = logging.getLogger("genro_nats.executor")

_EXPECTED: Final = 100_000  # own tasks whose end is expected; of the oldest beyond that the outcome is read
_AGAIN: Final = 1.0  # seconds until what could not be read after an outage is read again
_ELECTED: Final = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED."
_TOGETHER: Final = 100  # states read one by one at a time
_RECENT: Final = 1000  # outcomes kept that nobody has waited for yet
_RECENT_BYTES: Final = 16 << 20

Listener = Callable[[Stored], object]
Failing = Callable[[ExecutorError], object]


class _Entry:
    """One task that is waited for, watched, or expected."""

    __slots__ = ("listeners", "subscription", "waiters")

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[Stored]] = set()
        self.listeners: dict[Listener, Failing | None] = {}
        self.subscription: Subscription | None = None

    @property
    def wanted(self) -> bool:
        return bool(self.waiters or self.listeners)


class Outcomes:
    """Hears what becomes of tasks. ``owner``: what the ids of this pool instance's tasks begin with."""

    def __init__(self, js: JetStream, subjects: TaskSubjects, store: StateStore, owner: str) -> None:
        self._js = js
        self._subjects = subjects
        self._store = store
        self._owner = owner
        self._entries: dict[str, _Entry] = {}
        self._expected: OrderedDict[str, None] = OrderedDict()
        self._recent: OrderedDict[str, Stored] = OrderedDict()
        self._recent_bytes = 0
        self._forgotten: OrderedDict[str, int] = OrderedDict()  # sequences of what was read here
        self._reading: asyncio.Task[None] | None = None
        self._own: Subscription | None = None
        self.exists: Callable[[str], Awaitable[object]] | None = None  # raises TaskNotFoundError
        self._elected: Subscription | None = None

    async def start(self) -> None:
        """Hear of own tasks from now on. Raises PermissionDeniedError."""
        connection = self._js.connection
        self._own = await connection.subscribe(
            self._subjects.of("told", owner_tokens(self._owner), "*"), self._told, flawed=self._distrusted
        )
        connection.on_down.append(self._missed)
        connection.on_up.append(self._came_back)
        # A leader that was killed may have stored what it did not tell any more.
        elected = f"{_ELECTED}{self._subjects.states_stream}"
        self._elected = await connection.subscribe(elected, self._leader_elected)
        await connection.flush()
        connection.denials.require(self._own.subject)

    async def aclose(self, error: ExecutorError) -> None:
        """Hear no more; who waits gets ``error``."""
        if self._reading is not None:
            self._reading.cancel()
        for entry in list(self._entries.values()):
            for waiter in entry.waiters:
                _fail(waiter, error)
        self._entries.clear()
        for subscription in (self._own, self._elected):
            if subscription is not None:
                await self._js.connection.unsubscribe(subscription)

    # -- waiting ------------------------------------------------------------

    def expect(self, id: str) -> None:
        """An own task is about to be stored: if its id was made up here, its outcome will be told."""
        if not id.startswith(self._owner):
            return
        self._expected[id] = None
        if len(self._expected) > _EXPECTED:
            self._expected.popitem(last=False)

    def unexpect(self, id: str) -> None:
        """It was not stored."""
        self._expected.pop(id, None)

    def known(self, id: str) -> Stored | None:
        """The settled state, if it has been told and nobody has forgotten it."""
        return self._recent.get(id)

    async def told(self, id: str, timeout: float | None) -> Stored | None:
        """The settled state of a task whose end is expected; None: this one's is not, use ``wait``.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
        """
        if id not in self._expected:
            return None
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Stored] = loop.create_future()
        # A timer of its own costs a fraction of what asyncio.timeout does.
        timer = None if timeout is None else loop.call_later(timeout, _fail, waiter, TimeoutError())
        entry = await self._entry(id)
        entry.waiters.add(waiter)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            entry.waiters.discard(waiter)
            await self._release(id, entry)

    async def wait(self, id: str, exists: Callable[[str], Awaitable[object]]) -> Stored:
        """The settled state. ``exists(id)`` is awaited where nothing is stored, and raises if there is no task."""
        if (kept := self._recent.get(id)) is not None:
            return kept
        waiter: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        sure = id in self._expected
        entry = await self._entry(id)
        entry.waiters.add(waiter)
        try:
            if not sure:
                await self._look(id, waiter, exists)
            self.require(id)
            return await waiter
        finally:
            entry.waiters.discard(waiter)
            await self._release(id, entry)

    def require(self, id: str) -> None:
        """Raise PermissionDeniedError if the server does not let us hear of this task.

        It is known once something was asked after the first ``listen`` or ``wait``.
        """
        entry = self._entries.get(id)
        if entry is not None and entry.subscription is not None:
            self._js.connection.denials.require(entry.subscription.subject)

    async def _look(
        self, id: str, waiter: asyncio.Future[Stored], exists: Callable[[str], Awaitable[object]]
    ) -> None:
        stored = await self._store.load(id)
        if stored is None:
            try:
                await exists(id)
            except TaskNotFoundError:
                stored = await self._store.load(id)  # it may have ended between the two looks
                if stored is None and not waiter.done():
                    self._require_unread(id, None)
                    raise
        if stored is None:
            return
        if stored.settled and not waiter.done():
            self._require_unread(id, stored)
            waiter.set_result(stored)

    def _require_unread(self, id: str, stored: Stored | None) -> None:
        """Raise TaskNotFoundError if what is there, or nothing, is what reading left of it.

        Another task may have the same ``id=`` meanwhile; its outcome has another sequence.
        """
        if id in self._forgotten and (stored is None or self.was_read(id, stored)):
            raise TaskNotFoundError(
                f"The outcome of task {id} was read, and deleted as asked (keep_result).", task_id=id
            )

    async def listen(self, id: str, listener: Listener, failing: Failing | None = None) -> None:
        """Call ``listener`` with each state that is stored from now on, ``failing`` if one is refused."""
        (await self._entry(id)).listeners[listener] = failing

    async def unlisten(self, id: str, listener: Listener) -> None:
        """No more of that."""
        entry = self._entries.get(id)
        if entry is not None and listener in entry.listeners:
            del entry.listeners[listener]
            await self._release(id, entry)

    async def _entry(self, id: str) -> _Entry:
        entry = self._entries.get(id)
        if entry is None:
            entry = self._entries[id] = _Entry()
            told = self._subjects.told(id)
            if not id.startswith(self._owner) or not is_made_up(id):
                entry.subscription = await self._js.connection.subscribe(
                    told, self._told, flawed=self._distrusted
                )
        return entry

    async def _release(self, id: str, entry: _Entry) -> None:
        if entry.wanted or self._entries.get(id) is not entry:
            return
        del self._entries[id]
        if entry.subscription is not None:
            await self._js.connection.unsubscribe(entry.subscription)

    # -- hearing ------------------------------------------------------------

    def _told(self, message: Message) -> None:
        id = from_token(message.subject.rpartition(".")[2])
        if id not in self._entries and id not in self._expected:
            return
        seq = message.headers.get("Nats-Sequence", "0")
        self._read(id, message.data, int(seq) if seq.isdigit() else 0)

    def _distrusted(self, message: Message) -> None:
        assert message.flaw is not None
        self._mistrust(from_token(message.subject.rpartition(".")[2]), message.flaw)

    def _mistrust(self, id: str, flaw: Flaw) -> None:
        """Who waits hears at once what is wrong, for the rest may be no better; the task lives on.

        Who asks later has to look: nothing else may be told of it.
        """
        self.unexpect(id)
        entry = self._entries.get(id)
        if entry is None:
            return
        what = f"What was told of task {id} was refused"
        for waiter in entry.waiters:
            _fail(waiter, flaw.error(what))
        for failing in filter(None, list(entry.listeners.values())):
            failing(flaw.error(what))

    def _read(self, id: str, data: bytes, seq: int) -> None:
        try:
            self._tell(id, Stored(data, seq))
        except DecodeError as error:
            log.warning("task %s: %s", id, error)

    def _tell(self, id: str, stored: Stored) -> None:
        entry = self._entries.get(id)
        if entry is not None:
            for listener in list(entry.listeners):
                listener(stored)
        if not stored.settled or self.was_read(id, stored):
            return
        expected = id in self._expected
        self._expected.pop(id, None)
        if entry is not None and entry.waiters:
            for waiter in entry.waiters:
                if not waiter.done():
                    waiter.set_result(stored)
        elif expected:
            self._keep(id, stored)

    def _keep(self, id: str, stored: Stored) -> None:
        self._recent[id] = stored
        self._recent_bytes += len(stored.outcome)
        while len(self._recent) > _RECENT or self._recent_bytes > _RECENT_BYTES:
            _, dropped = self._recent.popitem(last=False)
            self._recent_bytes -= len(dropped.outcome)

    def forget(self, id: str, seq: int) -> None:
        """Its outcome, which has this sequence, was read and is to be deleted: for us it is."""
        self._forgotten[id] = seq
        if len(self._forgotten) > _RECENT:
            self._forgotten.popitem(last=False)
        dropped = self._recent.pop(id, None)
        if dropped is not None:
            self._recent_bytes -= len(dropped.outcome)

    def was_read(self, id: str, stored: Stored) -> bool:
        """Is this an outcome that was read here, and is to be deleted?"""
        return self._forgotten.get(id) == stored.seq

    def keep(self, id: str, seq: int) -> None:
        """Nobody could be asked to delete it: where it stayed it can be read again."""
        if self._forgotten.get(id) == seq:
            self._forgotten[id] = 0

    # -- after an outage ------------------------------------------------------

    def _missed(self) -> None:
        self._expected.clear()

    def _came_back(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = asyncio.ensure_future(self._read_all()) if self._entries else None

    def _leader_elected(self, message: Message) -> None:
        self._missed()
        self._came_back()

    async def _read_all(self) -> None:
        """What was told meanwhile, of those that are waited for."""
        while True:
            wanted = {self._subjects.state(id): id for id in self._entries}
            try:
                found = await self._last(list(wanted))
                break
            except ExecutorError as error:
                log.warning("states of tasks could not be read after an outage yet: %s", error)
                await asyncio.sleep(_AGAIN)
        for subject, message in found.items():
            if message.flaw is not None:
                self._mistrust(wanted[subject], message.flaw)
            else:
                self._read(wanted[subject], message.data, message.seq)
        for id in set(wanted.values()) - {wanted[subject] for subject in found}:
            await self._fail_if_gone(id)

    async def _last(self, subjects: list[str]) -> dict[str, StoredMessage]:
        stream = self._subjects.states_stream
        try:
            return await multi_last(self._js, stream, subjects)
        except PermissionDeniedError:
            # Together they are named in the body, where a server can't see whose they are.
            found: dict[str, StoredMessage] = {}
            for begin in range(0, len(subjects), _TOGETHER):
                page = (get_last(self._js, stream, one) for one in subjects[begin : begin + _TOGETHER])
                found |= {one.subject: one for one in await asyncio.gather(*page) if one is not None}
            return found

    async def _fail_if_gone(self, id: str) -> None:
        """An outage may outlast the time for which an outcome is kept: nobody will tell it any more."""
        entry = self._entries.get(id)
        if entry is None or self.exists is None:
            return
        try:
            await self.exists(id)
        except TaskNotFoundError as error:
            for waiter in entry.waiters:
                _fail(waiter, error)
        except ExecutorError as error:
            log.warning("task %s could not be looked up after an outage: %s", id, error)


def _fail(waiter: asyncio.Future[Stored], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # one that left does not look at it
