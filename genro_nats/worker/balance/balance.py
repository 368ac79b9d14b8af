"""Calls that wait here go to workers with free children, and free children here ask for calls that wait there.

Who has calls waiting says so to all (WAITING). Who has free children then, or
gets one later, asks one of them (TAKE), and is handed calls: the same frames,
with one hop more, on a subject of its own. Only a call that no child has begun
is handed on, and it comes back only if the server says that nobody hears that
subject. A worker that is alone says nothing but that it is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from math import inf
from random import uniform
from typing import Any, Final, NamedTuple, Protocol, cast

from genro_nats.codec.frame import (
    Buffer,
    Flag,
    Frame,
    FrameKind,
    check,
    decode,
    decode_all,
    encode,
    passed_on,
)
from genro_nats.codec.reference import plain_subject
from genro_nats.errors import ConnectionLostError, DecodeError, PayloadTooLargeError
from genro_nats.executor.children.pool import ChildPool
from genro_nats.executor.children.work import Work
from genro_nats.transport.nats import Connection, Message
from genro_nats.worker.balance import decisions
from genro_nats.worker.balance.decisions import Waiting
from genro_nats.worker.balance.peers import Peers

__all__ = ["Balance", "Holder", "Movable"]

log: Final = logging.getLogger("genro_nats.worker")

_AGE: Final = struct.Struct("!d")
_GONE: Final = Waiting(-1, inf)
_NONE: Final = Waiting(0, inf)
_REFUSED: Final = bytes([FrameKind.REFUSED])
_AGAIN: Final = 0.5  # seconds between two words about calls that still wait
_LIFE: Final = 2  # ticks between two signs of life
_LEAVING: Final = 0.5  # seconds for calls that were asked for before leaving
_SCAN: Final = 64  # calls looked at for one that may be handed on
_DOUBT: Final = 5.0  # seconds after which a call whose arrival nobody confirmed is its caller's to miss
_MOVED: Final = 10_000  # calls remembered that were handed on


class Movable(Work):
    """A call that may be handed on: its reply subject, its hops so far; ``announced`` stands for a large one."""

    __slots__ = ("announced", "came", "hops", "reply", "urgent")

    announced: bytes
    came: float  # event loop time, here or to the worker that had it before
    hops: int
    reply: str
    urgent: bool  # it must not queue

    @property
    def message(self) -> bytes:
        """The call as it came, while no child has it."""
        return self.announced or b"".join(cast("Sequence[Buffer]", self.parts))


class _Handed(NamedTuple):
    """A call on its way to another worker: what is to be done should it not arrive."""

    reply: str
    data: bytes
    came: float
    at: float


class Holder(Protocol):
    """Whose calls these are."""

    children: ChildPool

    def called(self, message: Message, came: float | None = None) -> object: ...
    def obey(self, frame: Frame) -> object: ...
    def refuse(self, reply: str, id: bytes) -> object: ...
    def handed_on(self, work: Any) -> object: ...
    def admit(self, work: Any) -> object: ...


class Balance:
    """One worker among those of its pool. ``group``: the subject that all of them hear."""

    def __init__(self, connection: Connection, group: str, holder: Holder) -> None:
        self.address = f"{group}.{os.urandom(8).hex()}"
        self.peers = Peers()
        self.counts = {"handed_on": 0, "taken": 0}
        self._connection = connection
        self._group = group
        self._holder = holder
        self._lobby: dict[
            bytes, Any
        ] = {}  # large calls that came while no child was free: nothing is pulled yet
        self._moved: OrderedDict[bytes, str] = OrderedDict()
        self._handed: dict[str, _Handed] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._told_at = self._looked_at = -inf
        self._ticks = 0
        self._loop = asyncio.get_running_loop()
        self._started = False
        self._leaving = False
        self._left = False
        self._settled = asyncio.Event()

    async def start(self) -> None:
        """Hear the others, and let them know."""
        await self._connection.subscribe(self._group, self._heard)
        await self._connection.subscribe(self.address, self._heard)
        await self._connection.subscribe(self.address + ".*", self._arrived)
        self._started = True
        self._tell_all(Waiting(0, 0.0))

    async def leave(self) -> None:
        """Ask for no more, and wait a moment for what was asked for."""
        try:
            await self._last_answers()
        finally:
            self._left = True

    async def _last_answers(self) -> None:
        self._leaving = True
        self._tell_all(_GONE)
        deadline = self._loop.time() + _LEAVING
        while self.peers.asked(self._loop.time()) and (left := deadline - self._loop.time()) > 0:
            self._settled.clear()
            try:
                async with asyncio.timeout(left):
                    await self._settled.wait()
            except TimeoutError:
                return

    def aclose(self) -> None:
        """End what is still planned."""
        self._leaving = True
        self._listen()
        for handle in (self._telling, self._looking):
            if handle is not None:
                handle.cancel()

    def tick(self) -> None:
        """Once a second: show that this worker lives."""
        self._ticks += 1
        now = self._loop.time()
        self.peers.expire(now)
        for receipt in [it for it, handed in self._handed.items() if now - handed.at > _DOUBT]:
            del self._handed[receipt]
        self._listen()
        if self._ticks % _LIFE == 0 and self._started and not self._leaving:
            self._tell_all(self._own())

    def _listen(self) -> None:
        """Hear of the children only while somebody could take calls or give some."""
        listens = len(self.peers) > 0 and not self._leaving
        children = self._holder.children
        children.on_wait = self._waits if listens else None
        children.on_room = self._look if listens else None

    # -- here calls wait ----------------------------------------------------

    def keep(self, work: Movable) -> bool:
        """May a large call wait in the lobby, since its arguments should be pulled where it will run?"""
        if not len(self.peers) or self._leaving or not decisions.may_move(work.hops):
            return False
        if self._holder.children.room() - len(self._lobby) > 0:
            return False
        self._lobby[work.id] = work
        if not work.urgent:
            self._loop.call_later(decisions.LOBBY, self._admit, work)
        self._waits()
        return True

    def drop(self, work: Movable) -> None:
        """A call is not held here any more."""
        self._lobby.pop(work.id, None)

    def _admit(self, work: Movable) -> None:
        if self._lobby.pop(work.id, None) is not None:
            self._holder.admit(work)

    def _surplus(self) -> int:
        return self._holder.children.surplus + len(self._lobby)

    def _waits(self) -> None:
        if self._telling is None:
            brief = self._holder.children.all_brief
            pause = decisions.delay(brief=brief, since=self._loop.time() - self._told_at)
            self._telling = self._loop.call_later(pause, self._tell)

    def _tell(self) -> None:
        """Tell all how many calls wait, again and again while some do."""
        self._telling = None
        own = self._own()
        if own.calls and not self._worth(own):
            self._telling = self._loop.call_later(decisions.WORTH, self._tell)
        elif own.calls and not self._leaving:
            self._told_at = self._loop.time()
            self._tell_all(own)
            self._telling = self._loop.call_later(_AGAIN * max(1, len(self.peers) / 16), self._tell)

    def _own(self) -> Waiting:
        """What waits here, and since when what may be handed on of it."""
        works = self._movable(1)
        return Waiting(self._surplus(), works[0].came if works else self._loop.time())

    def _worth(self, own: Waiting) -> bool:
        short = self._holder.children.all_short
        return decisions.worth(short=short, waited=self._loop.time() - own.since)

    def _give(self, peer: str, asked: int, *, exactly: bool) -> None:
        """One has children for that many calls: hand them on, the oldest first, and say what is left."""
        children = self._holder.children
        if not self._worth(self._own()):
            asked = 0
        recalled = not self._lobby and not children.queue and asked > 0
        if recalled:
            children.recall()
        works = self._movable(asked)
        short = sum(children.is_brief(work.key) and not work.large for work in works) == len(works)
        brief = short and not exactly
        count = decisions.share(asked, max(len(works), self._surplus() if brief else 0), brief=brief)
        given = sum(self._hand(work, peer) for work in works[:count] if asked)
        if recalled:
            children.on_capacity()
        left = self._own() if given >= asked > 0 else _NONE
        self._say(peer, _GONE if self._leaving else left)
        if not left.calls and self._telling is not None:
            self._telling.cancel()  # the next call that waits is told at once
            self._telling = None

    def _movable(self, asked: int) -> list[Movable]:
        most = max(asked, decisions.AT_ONCE)
        found = [*self._lobby.values(), *islice(self._holder.children.queue, most + _SCAN)]
        works = [work for work in found if isinstance(work, Movable) and decisions.may_move(work.hops)]
        return works[:most]

    def _hand(self, work: Movable, peer: str) -> bool:
        """Hand one call on; False: it stays."""
        left = work.deadline - self._loop.time()
        if left <= 0:
            return False
        now, receipt, call = (
            self._loop.time(),
            f"{self.address}.{work.id.hex()}",
            passed_on(work.message, left),
        )
        letter = encode(Frame(FrameKind.REFUSED, work.id, name=work.reply.encode())) + call
        if not self._publish(peer, letter, receipt):
            return False
        self._handed[receipt] = _Handed(work.reply, call, work.came, now)
        self._lobby.pop(work.id, None)
        self._holder.children.part_with(work)
        self._holder.handed_on(work)
        self.counts["handed_on"] += 1
        self._moved[work.id] = peer
        if len(self._moved) > _MOVED:
            self._moved.popitem(last=False)
        return True

    def _arrived(self, message: Message) -> None:
        """A call that was handed on is there; or nobody was, and it is ours again."""
        handed = self._handed.pop(message.subject, None)
        if handed is None or not message.status:
            return
        id = check(handed.data).id
        self._moved.pop(id, None)
        self.counts["handed_on"] -= 1
        if self._leaving:
            self._holder.refuse(handed.reply, id)
        else:
            self._holder.called(Message(self.address, handed.reply, handed.data, ""), handed.came)

    def follow(self, frame: Frame) -> bool:
        """Send a cancel or credit after its call; False: the call was not handed on."""
        peer = self._moved.get(frame.id)
        return peer is not None and self._post(peer, encode(frame))

    # -- here children are free ---------------------------------------------

    def _look(self) -> None:
        """A child may be free: pull what is in the lobby, or ask who has calls waiting."""
        self._looking = None
        children = self._holder.children
        room = children.room() if self._lobby or self.peers.some_wait else 0
        if self._lobby and room > 0:
            self._admit(next(iter(self._lobby.values())))
        if not self.peers.some_wait or self._leaving or (room <= 0 and not children.queue):
            return
        now, own = self._loop.time(), _NONE
        if children.queue:
            if now - self._looked_at < decisions.EASE:
                return
            self._looked_at, own = now, self._own()
        while found := decisions.wanted(self.peers.waiting(now), self.peers.asked(now), children.room(), own):
            self.peers.ask(found.peer, found.calls, now)
            flags = Flag.NO_QUEUE if found.older else 0
            if not self._post(found.peer, encode(Frame(FrameKind.TAKE, flags=flags, seconds=found.calls))):
                self.peers.answered(found.peer)
                return

    # -- what others say ----------------------------------------------------

    def _heard(self, message: Message) -> None:
        if message.status:
            self.peers.unanswered()
        elif message.reply != self.address:
            try:
                self._hear(message)
            except DecodeError as error:
                log.warning("a message on %s that can't be read: %s", message.subject, error)

    def _hear(self, message: Message) -> None:
        if message.subject == self.address and message.data[3:4] == _REFUSED:
            self._take_over(message)
            return
        for frame in decode_all(message.data):
            self._frame(frame, message)

    def _take_over(self, message: Message) -> None:
        """Another worker hands a call on: its reply subject, and the call. Raises DecodeError."""
        cover, at = decode(message.data)
        if not plain_subject(cover.name):
            raise DecodeError("A call that was handed on without a proper reply subject.", id=cover.id)
        reply, data = cover.name.decode(errors="replace"), message.data[at:]
        if not message.reply.startswith(f"{self._group}.") or self._left:
            self._holder.refuse(reply, cover.id)
            return
        self._publish(message.reply, encode(Frame(FrameKind.BEAT, body=cover.id)), self.address)
        self.counts["taken"] += 1
        self._holder.called(
            Message(message.subject, reply, data, ""), self.peers.oldest_asked(self._loop.time())
        )

    def _frame(self, frame: Frame, message: Message) -> None:
        peer = message.reply
        if frame.kind == FrameKind.WAITING and peer.startswith(f"{self._group}."):
            age = _AGE.unpack(frame.body)[0] if len(frame.body) == _AGE.size else 0.0
            told = Waiting(_count(frame), self._loop.time() - age)
            self._waiting(peer, told, direct=message.subject == self.address)
        elif frame.kind == FrameKind.TAKE and peer.startswith(f"{self._group}."):
            self._give(peer, _count(frame), exactly=bool(frame.flags & Flag.NO_QUEUE))
        elif frame.kind in (FrameKind.CANCEL, FrameKind.CREDIT):
            self._holder.obey(frame)

    def _waiting(self, peer: str, told: Waiting, *, direct: bool) -> None:
        if self.peers.hear(peer, told, self._loop.time()):
            self._listen()
            self._say(peer, self._own())
        if direct:
            self.peers.answered(peer)
            self._settled.set()
        pause = 0.0 if direct else decisions.spread(len(self.peers))
        if not pause:
            self._look()
        elif self._looking is None:
            self._looking = self._loop.call_later(uniform(0.0, pause), self._look)

    # -- sending ------------------------------------------------------------

    def _tell_all(self, own: Waiting) -> None:
        self._say(self._group, own)

    def _say(self, receiver: str, own: Waiting) -> None:
        age = _AGE.pack(max(0.0, self._loop.time() - own.since)) if own.calls > 0 else b""
        self._post(receiver, encode(Frame(FrameKind.WAITING, body=age, seconds=own.calls)))

    def _post(self, receiver: str, data: Buffer) -> bool:
        return self._publish(receiver, data, self.address)

    def _publish(self, receiver: str, data: Buffer, reply: str) -> bool:
        """Send it now; False: it was not sent."""
        try:
            return self._connection.publish_now(receiver, data, reply)
        except (ConnectionLostError, PayloadTooLargeError):
            return False


def _count(frame: Frame) -> int:
    """What a frame counts. Raises DecodeError."""
    if not -1 <= frame.seconds <= 1e9:
        raise DecodeError(f"A count of {frame.seconds}.", id=frame.id)
    return int(frame.seconds)
