"""Calls that wait here go to workers with free children, and free children here ask for calls that wait there.

Who has calls waiting says so to all (WAITING). Who has free children then, or
gets one later, asks one of them (TAKE), and is handed calls: the same frames,
with one hop more, on a subject of its own. A worker that is alone says nothing
but that it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from random import uniform
from typing import Final

from genro_nats.codec.frame import Flag, Frame, FrameKind, decode_all
from genro_nats.errors import DecodeError
from genro_nats.transport.nats import Connection, Message
from genro_nats.worker.balance import decisions, letters
from genro_nats.worker.balance.decisions import Waiting
from genro_nats.worker.balance.giving import Giving
from genro_nats.worker.balance.holder import Holder
from genro_nats.worker.balance.letters import GONE, NONE, Letters
from genro_nats.worker.balance.peers import Peers

__all__ = ["Balance"]

_LIFE: Final = 2  # ticks between two signs of life
_LEAVING: Final = 0.5  # seconds for calls that were asked for before leaving


class Balance:
    """One worker among those of its pool. ``group``: the subject that all of them hear."""

    def __init__(self, connection: Connection, group: str, holder: Holder) -> None:
        self.peers = Peers()
        self._connection = connection
        self._letters = Letters(connection, group)
        self.giving = Giving(self._letters, self.peers, holder)
        self._holder = holder
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.TimerHandle | None = None
        self._looked_at = -inf
        self._ticks = 0
        self._taken = 0
        self._started = False
        self._left = False
        self._answered = asyncio.Event()

    async def start(self) -> None:
        """Hear the others, and let them know."""
        address = self._letters.address
        await self._connection.subscribe(self._letters.group, self._heard)
        await self._connection.subscribe(address, self._heard)
        await self._connection.subscribe(f"{address}.*", self.giving.arrived)
        self._started = True
        self._tell_all(NONE)

    async def leave(self) -> None:
        """Ask for no more, and wait a moment for what was asked for."""
        self.giving.leaving = True
        self._tell_all(GONE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING):
                while self.peers.asked(self._loop.time()):
                    self._answered.clear()
                    await self._answered.wait()
        self._left = True

    def aclose(self) -> None:
        """End what is still planned."""
        self.giving.aclose()
        self._listen()
        if self._looking is not None:
            self._looking.cancel()

    def tick(self) -> None:
        """Once a second: show that this worker lives."""
        self._ticks += 1
        self.giving.tick()
        self.peers.expire(self._loop.time())
        self._listen()
        if self._ticks % _LIFE == 0 and self._started and not self.giving.leaving:
            self._tell_all(self.giving.own())

    def facts(self) -> dict[str, int]:
        """How many calls were handed on, and taken from others."""
        return {"handed_on": self.giving.handed_on, "taken": self._taken}

    def _listen(self) -> None:
        """Hear of the children only while somebody could take calls or give some."""
        listens = len(self.peers) > 0 and not self.giving.leaving
        children = self._holder.children
        children.on_wait = self.giving.waits if listens else None
        children.on_room = self._look if listens else None

    # -- here children are free ---------------------------------------------

    def _look(self) -> None:
        """A child may be free: ask who has calls waiting."""
        self._looking = None
        self.giving.admit_one()
        if not self.peers.some_wait or self.giving.leaving:
            return
        children, now, own = self._holder.children, self._loop.time(), NONE
        if children.queue:
            if now - self._looked_at < decisions.EASE:
                return
            self._looked_at, own = now, self.giving.own()
        elif children.room() <= 0:
            return
        self._ask(own, now)

    def _ask(self, own: Waiting, now: float) -> None:
        while wish := decisions.wanted(
            self.peers.waiting(now), self.peers.asked(now), self._holder.children.room(), own
        ):
            if not self._letters.ask(wish):
                return
            self.peers.ask(wish.peer, wish.calls, now)

    def _take_over(self, message: Message) -> None:
        """Another worker hands a call on. Raises DecodeError."""
        it = letters.passed(message)
        if not self._letters.is_peer(message.reply):
            raise DecodeError("A call that no worker of this pool handed on.", id=it.id)
        self._letters.confirm(message.reply, it.id)
        if self._left:
            self._holder.refuse(it.reply, it.id)
            return
        self._taken += 1
        came = self.peers.oldest_asked(self._loop.time())
        self._holder.called(Message(message.subject, it.reply, it.call, ""), came)

    # -- what others say ----------------------------------------------------

    def _heard(self, message: Message) -> None:
        if message.status:
            self.peers.unanswered()
        elif message.reply != self._letters.address:
            try:
                self._hear(message)
            except DecodeError as error:
                self._connection.guard.unreadable(message.subject, error)

    def _hear(self, message: Message) -> None:
        direct = message.subject == self._letters.address
        if direct and letters.is_passed(message.data):
            self._take_over(message)
            return
        for frame in decode_all(message.data):
            self._frame(frame, message.reply, direct)

    def _frame(self, frame: Frame, peer: str, direct: bool) -> None:
        if frame.kind in (FrameKind.CANCEL, FrameKind.CREDIT):
            self._holder.obey(frame)
        elif not self._letters.is_peer(peer):
            return
        elif frame.kind == FrameKind.WAITING:
            self._waiting(peer, letters.told(frame, self._loop.time()), direct)
        elif frame.kind == FrameKind.TAKE and direct:
            self.giving.give(peer, letters.count(frame), exactly=bool(frame.flags & Flag.NO_QUEUE))

    def _waiting(self, peer: str, told: Waiting, direct: bool) -> None:
        now = self._loop.time()
        if self.peers.hear(peer, told, now):
            self._listen()
            self._letters.tell(peer, self.giving.own(), now)
        if direct:
            self.peers.answered(peer)
            self._answered.set()
        pause = 0.0 if direct else decisions.spread(len(self.peers))
        if not pause:
            self._look()
        elif self._looking is None:
            self._looking = self._loop.call_later(uniform(0.0, pause), self._look)

    def _tell_all(self, own: Waiting) -> None:
        self._letters.tell(self._letters.group, own, self._loop.time())
