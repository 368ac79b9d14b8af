"""Taking messages from several consumers in strict order of priority, as far as there are free slots.

::

    add_slots(n) ──▶ decide: which level, how many ──▶ Lane high   ◀──▶ consumer
    handler(Delivery) ◀── message: takes a slot    ◀── Lane normal ◀──▶ consumer
    NAK: no slot, or a higher level may have some  ◀── Lane low    ◀──▶ consumer

While idle, all levels have a waiting ask out, so what comes first is there in one hop. What
such an ask brings after the slots went elsewhere goes back at once, and its level is asked
first when there is a slot: it goes back once for each message that was asked for, at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from genro_nats.transport.delivery import Delivery
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.lane import Lane
from genro_nats.transport.priority import WAITING, decide

__all__ = ["Intake"]

log: Final = logging.getLogger("genro_nats.transport")

_HANDLER_FAILED: Final = 1.0  # seconds until what the handler raised for comes again


class Intake:
    """Pulls from ``consumers`` of a stream, the highest priority first, for as long as it is started.

    ``handler`` is called in the event loop with each Delivery; it takes a slot, which comes
    back by ``add_slots(1)`` only. ``inbox``: a subject of its own, ending in a dot.
    ``expires``: seconds an ask waits at the server; ``heartbeat``: seconds between signs of
    life, two of them missed count as silence. ``restore``: called when a consumer seems to
    be gone, to create them again; what it raises is logged and it is called again later.
    """

    def __init__(
        self,
        js: JetStream,
        stream: str,
        consumers: Sequence[str],
        inbox: str,
        handler: Callable[[Delivery], object],
        *,
        expires: float = 30.0,
        heartbeat: float = 2.0,
        restore: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._connection = js.connection
        self._handler = handler
        self._heartbeat = heartbeat
        self._lanes = [
            Lane(
                js,
                stream,
                consumer,
                f"{inbox}{number}.",
                self._take,
                self._plan,
                expires=expires,
                heartbeat=heartbeat,
                restore=restore,
            )
            for number, consumer in enumerate(consumers)
        ]
        self._free = 0
        self._running = False
        self._started = False
        self._planned: asyncio.Handle | None = None
        self._watch: asyncio.Handle | None = None
        self.waiting = WAITING  # messages asked for at an empty level, at most
        self.returned = 0  # how many messages went back because they could not be taken

    @property
    def free(self) -> int:
        """Slots that no message has taken."""
        return self._free

    @property
    def open(self) -> int:
        """Messages that have been asked for and may come."""
        return sum(lane.known.waiting + lane.known.probing for lane in self._lanes)

    @property
    def silences(self) -> int:
        """How often the server fell silent."""
        return sum(lane.silences for lane in self._lanes)

    async def start(self) -> None:
        """Begin to pull, as far as there are slots."""
        self._loop = asyncio.get_running_loop()
        self._started = self._running = True
        self._connection.on_up.append(self._ask_for_all)
        self._connection.on_down.append(self._forget)
        for lane in self._lanes:
            await lane.start()
        self._watch = self._loop.call_later(self._heartbeat, self._look)
        self._plan()

    def add_slots(self, count: int = 1) -> None:
        """So many more messages can be taken. Negative: so many fewer; what comes beyond them goes back."""
        self._free += count
        self._plan()

    async def aclose(self) -> None:
        """Pull no more. What still comes goes back to the queue. Can be repeated."""
        if not self._started:
            return
        self._started = self._running = False
        self._connection.on_up.remove(self._ask_for_all)
        self._connection.on_down.remove(self._forget)
        for handle in (self._planned, self._watch):
            if handle is not None:
                handle.cancel()
        await asyncio.gather(*(lane.aclose() for lane in self._lanes))

    def _plan(self) -> None:
        """Ask in a later turn of the loop, together with what else comes free in this one."""
        if self._planned is None and self._running:
            self._planned = self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._planned = None
        for ask in decide(self._free, [lane.known for lane in self._lanes], self.waiting):
            self._lanes[ask.level].ask(ask.batch, ask.wait)
        for lane in self._lanes:
            lane.settle()

    def _forget(self) -> None:
        for lane in self._lanes:
            lane.forget()

    def _ask_for_all(self) -> None:
        self._forget()
        self._plan()

    def _look(self) -> None:
        self._watch = self._loop.call_later(self._heartbeat, self._look)
        for lane in self._lanes:
            lane.look()

    def _take(self, lane: Lane, message: Delivery) -> None:
        if self._free <= 0 or not self._running or self._higher_first(lane):
            self.returned += 1
            lane.returned()
            message.nak_now()
            self._plan()
            return
        self._free -= 1
        try:
            self._handler(message)
        except Exception:
            log.exception("a message on %s could not be handled", message.subject)
            message.nak_now(_HANDLER_FAILED)
            self._free += 1
        self._plan()  # after what the handler has planned: its words and the next ask leave together

    def _higher_first(self, lane: Lane) -> bool:
        """May a higher level have some?"""
        for other in self._lanes:
            if other is lane:
                break
            if not other.empty:
                return True
        return False
