"""Calls that wait here: said to all, and handed to workers that have free children."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from genro_nats.codec.frame import Frame, encode, passed_on
from genro_nats.transport.nats import Message
from genro_nats.worker.balance import decisions
from genro_nats.worker.balance.decisions import Waiting
from genro_nats.worker.balance.holder import Holder, Movable
from genro_nats.worker.balance.letters import GONE, NONE, Letters, Passed
from genro_nats.worker.balance.peers import Peers

__all__ = ["Giving"]

_AGAIN: Final = 0.5  # seconds between two words about calls that still wait
_SCAN: Final = 64  # calls looked at for one that may be handed on
_MOVED: Final = 10_000  # calls remembered that were handed on
_DOUBT: Final = 5.0  # seconds after which a call whose arrival nobody confirmed is its caller's to miss
_MANY: Final = 16  # workers above which each speaks less often


class _Handed(NamedTuple):
    """A call on its way to another worker: what is to be done should it not arrive."""

    it: Passed
    came: float
    at: float


class Giving:
    """Only a call that no child has begun is handed on, and it comes back only if nobody heard of it there."""

    def __init__(self, letters: Letters, peers: Peers, holder: Holder) -> None:
        self.handed_on = 0
        self.leaving = False
        self._letters = letters
        self._peers = peers
        self._holder = holder
        self._loop = asyncio.get_running_loop()
        self._lobby: dict[bytes, Movable] = {}  # large calls that found no free child: nothing is pulled yet
        self._moved: OrderedDict[bytes, str] = OrderedDict()
        self._handed: dict[str, _Handed] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = -inf

    def aclose(self) -> None:
        """Say nothing more."""
        self.leaving = True
        self._hush()

    def tick(self) -> None:
        """Forget calls whose arrival nobody confirmed."""
        now = self._loop.time()
        for receipt in [it for it, handed in self._handed.items() if now - handed.at > _DOUBT]:
            del self._handed[receipt]

    # -- what waits ---------------------------------------------------------

    def own(self) -> Waiting:
        """What waits here, and since when what may be handed on of it."""
        works = self._movable(1)
        if not works and self._holder.children.queue:
            return NONE  # tasks, and calls that have moved often enough
        return Waiting(self._surplus(), works[0].came if works else self._loop.time())

    def _surplus(self) -> int:
        return self._holder.children.surplus + len(self._lobby)

    def _movable(self, asked: int) -> list[Movable]:
        most = max(asked, decisions.AT_ONCE)
        found = [*self._lobby.values(), *islice(self._holder.children.queue, most + _SCAN)]
        works = [work for work in found if isinstance(work, Movable) and decisions.may_move(work.hops)]
        return works[:most]

    def keep(self, work: Movable) -> bool:
        """May a large call wait in the lobby, since its arguments should be pulled where it will run?"""
        if not len(self._peers) or self.leaving or not decisions.may_move(work.hops):
            return False
        if self._holder.children.room() - len(self._lobby) > 0:
            return False
        self._lobby[work.id] = work
        if not work.urgent:
            self._loop.call_later(decisions.LOBBY, self._admit, work)
        self.waits()
        return True

    def admit_one(self) -> None:
        """A child is free: have one of the lobby run here."""
        if self._lobby and self._holder.children.room() > 0:
            self._admit(next(iter(self._lobby.values())))

    def _admit(self, work: Movable) -> None:
        if self.drop(work):
            self._holder.admit(work)

    def drop(self, work: Movable) -> bool:
        """A call does not wait in the lobby any more; did it?

        The call, not its id: one that was handed on may have come back, while this is what it was before.
        """
        if self._lobby.get(work.id) is not work:
            return False
        del self._lobby[work.id]
        return True

    # -- saying so ----------------------------------------------------------

    def waits(self) -> None:
        """A call waits: say so to all soon, unless that was said."""
        if self._telling is None:
            brief = self._holder.children.all_brief
            self._tell_in(decisions.delay(brief=brief, since=self._loop.time() - self._told_at))

    def _tell_in(self, seconds: float) -> None:
        self._telling = self._loop.call_later(seconds, self._tell)

    def _tell(self) -> None:
        """Tell all how many calls wait, again and again while some do."""
        self._telling = None
        own = self.own()
        if not own.calls or self.leaving:
            return
        if not self._worth(own):
            self._tell_in(decisions.WORTH)
            return
        self._told_at = self._loop.time()
        self._letters.tell(self._letters.group, own, self._told_at)
        self._tell_in(_AGAIN * max(1, len(self._peers) / _MANY))

    def _hush(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _worth(self, own: Waiting) -> bool:
        short = self._holder.children.all_short
        return decisions.worth(short=short, waited=self._loop.time() - own.since)

    # -- handing on ---------------------------------------------------------

    def give(self, peer: str, asked: int, *, exactly: bool) -> None:
        """One has children for that many calls: hand them on, the oldest first, and say what is left.

        ``exactly``: no more than that, brief as they may be.
        """
        given = self._give(peer, asked, exactly) if asked > 0 and self._worth(self.own()) else 0
        left = self.own() if given >= asked > 0 else NONE
        self._letters.tell(peer, GONE if self.leaving else left, self._loop.time())
        if not left.calls:
            self._hush()  # the next call that waits is told at once

    def _give(self, peer: str, asked: int, exactly: bool) -> int:
        children = self._holder.children
        recalled = not self._lobby and not children.queue
        if recalled:
            children.recall()
        works = self._movable(asked)
        brief = not exactly and all(children.is_brief(work.key) and not work.large for work in works)
        count = decisions.share(asked, max(len(works), self._surplus() if brief else 0), brief=brief)
        given = sum(self._hand(work, peer) for work in works[:count])
        if recalled:
            children.on_capacity()
        return given

    def _hand(self, work: Movable, peer: str) -> bool:
        """Hand one call on; False: it stays."""
        now = self._loop.time()
        if work.deadline <= now:
            return False
        it = Passed(work.id, work.reply, passed_on(work.message, work.deadline - now))
        receipt = self._letters.hand(peer, it)
        if not receipt:
            return False
        self._handed[receipt] = _Handed(it, work.came, now)
        self.drop(work)
        self._holder.children.part_with(work)
        self._holder.handed_on(work)
        self.handed_on += 1
        self._moved[work.id] = peer
        if len(self._moved) > _MOVED:
            self._moved.popitem(last=False)
        return True

    def arrived(self, message: Message) -> None:
        """A call that was handed on is there; or nobody was, says the server, and it is ours again."""
        handed = self._handed.pop(message.subject, None)
        if handed is None or not message.status:
            return
        it = handed.it
        self._moved.pop(it.id, None)
        self.handed_on -= 1
        if self.leaving:
            self._holder.refuse(it.reply, it.id)
        else:
            self._holder.called(Message(message.subject, it.reply, it.call, ""), handed.came)

    def follow(self, frame: Frame) -> None:
        """Send a cancel or credit after its call, if that was handed on."""
        peer = self._moved.get(frame.id)
        if peer is not None:
            self._letters.send(peer, encode(frame))
