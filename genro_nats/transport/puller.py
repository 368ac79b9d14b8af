"""Pulling from a consumer: never more than the user has free slots for, and never silently dead.

::

    add_slots(n) ──▶ ask: free slots not asked for yet ──▶ consumer
    handler(Delivery) ◀── message: takes a slot          ◀──┘ │
    ask again after a while ◀── "408", "409", "503"      ◀────┤
    ask for all again ◀── nothing heard, or reconnected  ◀────┘ heartbeats while it waits

After silence it is unknown what the server still remembers, so all is asked for
again; if it then sends more than there are free slots, the rest goes back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from genro_nats.errors import ConnectionLostError, ExecutorError
from genro_nats.transport.delivery import ACK_PREFIX, Delivery, nak_body
from genro_nats.transport.jetstream import API, JetStream
from genro_nats.transport.nats import Message, Subscription

__all__ = ["Puller"]

log: Final = logging.getLogger("genro_nats.transport")

_SECOND: Final = 1_000_000_000
_PAUSE: Final = (0.02, 1.0)  # seconds before asking again after a refusal, first and longest
_CROWDED: Final = 0.01  # seconds before asking again when much waits to be sent
_HANDLER_FAILED: Final = 1.0  # seconds until what the handler raised for comes again
_HEARTBEAT: Final = "100"
_ENDED: Final = ("404", "408")  # a pull that ended as it should
_GONE: Final = ("503", "Consumer Deleted", "Stream Deleted", "Consumer not found")


class Puller:
    """Pulls from one consumer for as long as it is started.

    ``handler`` is called in the event loop with each Delivery; it takes a slot, which comes
    back by ``add_slots(1)`` only. ``inbox``: a subject of its own, ending in a dot.
    ``expires``: seconds a pull waits at the server; ``heartbeat``: seconds between signs of
    life, two of them missed count as silence. ``restore``: called when the consumer seems to
    be gone, to create it again; what it raises is logged and it is called again later.
    """

    def __init__(
        self,
        js: JetStream,
        stream: str,
        consumer: str,
        inbox: str,
        handler: Callable[[Delivery], object],
        *,
        expires: float = 30.0,
        heartbeat: float = 2.0,
        restore: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._js = js
        self._connection = js.connection
        self._subject = f"{API}CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._shown = f"consumer {consumer} of stream {stream}"
        self._inbox = inbox
        self._handler = handler
        self._waits = {"expires": int(expires * _SECOND), "idle_heartbeat": int(heartbeat * _SECOND)}
        self._heartbeat = heartbeat
        self._restore = restore
        self._free = 0
        self._asked = 0  # of these, how many the server is believed to have been asked for
        self._round = 0  # grows when all is asked for anew; words about older pulls mean nothing
        self._pause = _PAUSE[0]
        self._running = False
        self._planned: asyncio.Handle | None = None
        self._watch: asyncio.Handle | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self.silences = 0  # how often the server fell silent

    @property
    def free(self) -> int:
        """Slots that no message has taken."""
        return self._free

    async def start(self) -> None:
        """Begin to pull, as far as there are slots."""
        self._loop = asyncio.get_running_loop()
        self._running = True
        self._heard_at = self._loop.time()
        self._connection.on_up.append(self._ask_for_all)
        self._connection.on_down.append(self._forget_asked)
        self._subscription = await self._connection.subscribe(
            f"{self._inbox}>", self._receive, flawed=self._receive_flawed
        )
        self._watch = self._loop.call_later(self._heartbeat, self._look)
        self._plan()

    def add_slots(self, count: int = 1) -> None:
        """So many more messages can be taken. Negative: so many fewer; what comes beyond them goes back."""
        self._free += count
        self._plan()

    async def aclose(self) -> None:
        """Pull no more. What still comes goes back to the queue. Can be repeated."""
        if self._subscription is None:
            return
        subscription, self._subscription = self._subscription, None
        self._running = False
        self._connection.on_up.remove(self._ask_for_all)
        self._connection.on_down.remove(self._forget_asked)
        for handle in (self._planned, self._watch, self._restoring):
            if handle is not None:
                handle.cancel()
        await self._connection.unsubscribe(subscription)

    # -- asking ------------------------------------------------------------------

    def _plan(self, delay: float = 0.0) -> None:
        """Ask in a later turn of the loop, together with what else comes free in this one."""
        if self._planned is None and self._running:
            self._planned = (
                self._loop.call_later(delay, self._ask) if delay else self._loop.call_soon(self._ask)
            )

    def _ask(self) -> None:
        self._planned = None
        batch = self._free - self._asked
        # While many are asked for and don't come there are none: asking for a few more
        # would only pile up pulls, each with its own heartbeats.
        if batch <= 0 or self._asked * 2 > self._free or not self._running or self._restoring:
            return
        body = json.dumps({"batch": batch, **self._waits}).encode()
        try:
            sent = self._connection.publish_now(self._subject, body, f"{self._inbox}{self._round}.{batch}")
        except ConnectionLostError:
            return  # asked for when the connection is back
        if not sent:
            self._plan(_CROWDED)
            return
        if not self._asked:
            self._heard_at = self._loop.time()
        self._asked += batch

    def _forget_asked(self) -> None:
        self._asked = 0
        self._round += 1

    def _ask_for_all(self) -> None:
        self._forget_asked()
        self._pause = _PAUSE[0]
        if self._planned is not None:
            self._planned.cancel()  # it may be the end of a long pause
            self._planned = None
        self._plan()

    def _look(self) -> None:
        """Has the server given a sign of life?"""
        self._watch = self._loop.call_later(self._heartbeat, self._look)
        if self._asked and self._loop.time() - self._heard_at > 2 * self._heartbeat:
            self.silences += 1
            log.warning("%s is silent; asking again", self._shown)
            self._ask_for_all()

    # -- hearing -----------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        if message.reply.startswith(ACK_PREFIX):
            self._heard_at = self._loop.time()
            self._pause = _PAUSE[0]
            self._asked = max(0, self._asked - 1)
            self._take(message)
            return
        number, _, batch = message.subject.removeprefix(self._inbox).partition(".")
        if number == str(self._round) and message.status:
            self._heard_at = self._loop.time()
            if message.status != _HEARTBEAT:
                self._pull_ended(message, int(batch))

    def _receive_flawed(self, message: Message) -> None:
        """The handler is told by ``Delivery.flaw``; what no stream sent is nothing."""
        if not message.subject.startswith(self._inbox):
            self._receive(message)

    def _take(self, message: Message) -> None:
        if self._free <= 0 or not self._running:
            self._return(message, 0.0)
            return
        self._free -= 1
        try:
            self._handler(Delivery(self._js, message))
        except Exception:
            log.exception("a message of %s could not be handled", self._shown)
            self._return(message, _HANDLER_FAILED)
            self._free += 1
        self._plan()

    def _return(self, message: Message, delay: float) -> None:
        with contextlib.suppress(ConnectionLostError):  # then it comes again after ack_wait
            self._connection.publish_now(message.reply, nak_body(delay))

    def _pull_ended(self, message: Message, batch: int) -> None:
        left = message.headers.get("Nats-Pending-Messages", "")
        self._asked = max(0, self._asked - (int(left) if left.isdigit() else batch))
        text = message.headers.get("Description", "")
        if message.status in _ENDED:
            self._plan()
            return
        log.debug("%s: a pull ended: %s %s", self._shown, message.status, text)
        delay, self._pause = self._pause, min(self._pause * 2, _PAUSE[1])
        if self._restore is not None and (message.status in _GONE or text in _GONE) and self._running:
            if self._restoring is None:
                self._restoring = self._loop.create_task(self._restored(self._restore, delay))
        else:
            self._plan(delay)

    async def _restored(self, restore: Callable[[], Awaitable[object]], delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await restore()
        except ExecutorError as error:
            log.warning("%s could not be restored: %s", self._shown, error)
        finally:
            self._restoring = None
        self._forget_asked()
        self._plan()
