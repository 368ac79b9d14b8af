"""One level of an intake: the asks that are out at its consumer, and what is known from the answers.

Answers to the two kinds of asks come to subjects of their own, so each message is
counted against the ask that brought it. After silence, or a lost connection, it is
unknown what the server remembers: nothing is believed any more, and all is asked for again.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from genro_nats.errors import ConnectionLostError, ExecutorError
from genro_nats.transport.delivery import ACK_PREFIX, Delivery
from genro_nats.transport.jetstream import API, JetStream
from genro_nats.transport.nats import Message, Subscription
from genro_nats.transport.priority import Known

__all__ = ["Lane"]

log: Final = logging.getLogger("genro_nats.transport")

_SECOND: Final = 1_000_000_000
_PAUSE: Final = (0.02, 1.0)  # seconds before asking again after a refusal, first and longest
_CROWDED: Final = 0.01  # seconds before asking again when much waits to be sent
_MANY: Final = 256  # messages pending that others will hardly take all at once
_SHORT: Final = _SECOND // 10  # of waiting where there were many
# Servers count what is pending for an ask that does not wait: more work where there is much.
_SHORTLY: Final = {"expires": _SHORT}
_AT_ONCE: Final = {"no_wait": True}
_HEARTBEAT: Final = "100"
_ENDED: Final = ("404", "408")  # an ask that ended as it should: there are none
_GONE: Final = ("503", "Consumer Deleted", "Stream Deleted", "Consumer not found")


class _Asks:
    """The asks of one kind that are out, oldest first: the server serves them in this order."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self.heard_at = 0.0
        self.open = 0  # messages asked for that have not come
        self._left: dict[str, int] = {}  # by reply subject
        self._number = 0

    @property
    def next_reply(self) -> str:
        return f"{self.inbox}{self._number}"

    def add(self, batch: int, now: float) -> None:
        if not self.open:
            self.heard_at = now
        self._left[self.next_reply] = batch
        self._number += 1
        self.open += batch

    def delivered(self) -> None:
        for reply in self._left:
            self.open -= 1
            self._left[reply] -= 1
            if not self._left[reply]:
                del self._left[reply]
            return

    def ended(self, reply: str) -> bool:
        """False: it was forgotten before, or had got all."""
        left = self._left.pop(reply, 0)
        self.open -= left
        return left > 0

    def clear(self) -> None:
        self._left.clear()
        self.open = 0


class Lane:
    """Asks one consumer. ``take``: called with each message; ``changed``: when it can be asked again.

    ``expires``, ``heartbeat``, ``restore``: as of ``Intake``.
    """

    def __init__(
        self,
        js: JetStream,
        stream: str,
        consumer: str,
        inbox: str,
        take: Callable[[Lane, Delivery], object],
        changed: Callable[[], object],
        *,
        expires: float,
        heartbeat: float,
        restore: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self._js = js
        self._connection = js.connection
        self._subject = f"{API}CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._shown = f"consumer {consumer} of stream {stream}"
        self._take = take
        self._changed = changed
        self._waits = {"expires": int(expires * _SECOND), "idle_heartbeat": int(heartbeat * _SECOND)}
        self._heartbeat = heartbeat
        self._restore = restore
        self.empty = False  # the server said so, and an ask is out there that would bring what comes
        self._pending = 0  # as the last message said
        self._waiting = _Asks(f"{inbox}wait.")
        self._probing = _Asks(f"{inbox}probe.")
        self._pause = _PAUSE[0]
        self._resume: asyncio.TimerHandle | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._subscriptions: list[Subscription] = []
        self.silences = 0  # how often the server fell silent

    @property
    def known(self) -> Known:
        blocked = self._resume is not None or self._restoring is not None
        return Known(self.empty, self._waiting.open, self._probing.open, blocked)

    async def start(self) -> None:
        """Get ready to hear."""
        self._loop = asyncio.get_running_loop()
        for asks in (self._waiting, self._probing):
            hear = functools.partial(self._hear, asks)
            flawed = functools.partial(self._hear_flawed, asks)
            subscribe = self._connection.subscribe
            self._subscriptions.append(await subscribe(f"{asks.inbox}>", hear, flawed=flawed))

    async def aclose(self) -> None:
        """Hear no more. Can be repeated."""
        if self._resume is not None:
            self._resume.cancel()
        if self._restoring is not None:
            self._restoring.cancel()
        while self._subscriptions:
            await self._connection.unsubscribe(self._subscriptions.pop())

    def ask(self, batch: int, wait: bool) -> None:
        """Ask for so many messages."""
        asks = self._waiting if wait else self._probing
        how = self._waits if wait else _SHORTLY if self._pending > _MANY else _AT_ONCE
        body = json.dumps({"batch": batch, **how}).encode()
        try:
            sent = self._connection.publish_now(self._subject, body, asks.next_reply)
        except ConnectionLostError:
            return  # all is asked for when the connection is back
        if sent:
            asks.add(batch, self._loop.time())
        else:
            self._block(_CROWDED)

    def forget(self) -> None:
        """Believe nothing any more."""
        self.empty = False
        self._pending = 0
        self._waiting.clear()
        self._probing.clear()
        self._pause = _PAUSE[0]
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def returned(self) -> None:
        """A message went back: there is one."""
        self.empty = False

    def settle(self) -> None:
        """What could be asked for has been asked for: a level that nobody asks is not known to be empty."""
        self.empty = self.empty and self._waiting.open > 0

    def look(self) -> None:
        """Has the server given a sign of life?"""
        silent_since = self._loop.time() - 2 * self._heartbeat
        if any(asks.open and asks.heard_at < silent_since for asks in (self._waiting, self._probing)):
            self.silences += 1
            log.warning("%s is silent; asking again", self._shown)
            self.forget()
            self._changed()

    def _hear(self, asks: _Asks, message: Message) -> None:
        asks.heard_at = self._loop.time()
        if message.reply.startswith(ACK_PREFIX):
            asks.delivered()
            self._pause = _PAUSE[0]
            delivery = Delivery(self._js, message)
            # Redeliveries are not counted as pending: none pending does not mean empty.
            self._pending = delivery.pending
            if self._pending or not self._waiting.open:
                self.empty = False
            self._take(self, delivery)
        elif message.status and message.status != _HEARTBEAT and asks.ended(message.subject):
            self._refused(asks, message)

    def _hear_flawed(self, asks: _Asks, message: Message) -> None:
        """A task that must not be believed is taken, to be buried; what no stream sent is nothing."""
        if not message.subject.startswith(asks.inbox):
            self._hear(asks, message)

    def _refused(self, asks: _Asks, message: Message) -> None:
        """There are none (any more), or it can't be said."""
        text = message.headers.get("Description", "")
        self._pending = 0
        if message.status in _ENDED:
            self.empty = self.empty or asks is self._probing
            self._changed()
            return
        log.debug("%s: an ask ended: %s %s", self._shown, message.status, text)
        self.empty = False
        delay, self._pause = self._pause, min(self._pause * 2, _PAUSE[1])
        if self._restore is not None and (message.status in _GONE or text in _GONE):
            if self._restoring is None:
                self._restoring = self._loop.create_task(self._restored(self._restore, delay))
        else:
            self._block(delay)

    def _block(self, delay: float) -> None:
        if self._resume is None:
            self._resume = self._loop.call_later(delay, self._unblock)

    def _unblock(self) -> None:
        self._resume = None
        self._changed()

    async def _restored(self, restore: Callable[[], Awaitable[object]], delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await restore()
        except ExecutorError as error:
            log.warning("%s could not be restored: %s", self._shown, error)
        finally:
            self._restoring = None
        pause = self._pause
        self.forget()
        self._pause = pause
        self._changed()
