"""A subject that is heard, through every reconnect, and the messages that come there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg

from genro_nats.codec.signing import MAGIC, Flaw
from genro_nats.transport.contexts import PULL
from genro_nats.transport.guard import Guard
from genro_nats.transport.headers import Headers
from genro_nats.transport.reader import Raw, Taker
from genro_nats.transport.transfer.raw import take_whole

__all__ = ["Message", "Subscription"]

log: Final = logging.getLogger("genro_nats.transport")

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Message(NamedTuple):
    """A received message. ``status``: the server's own word in place of a reply, such as "503".

    ``flaw``: why it must not be believed; only those who asked for such messages get any, data
    and seal as they came. ``raw``: the data with its seal, where there is a key.
    """

    subject: str
    reply: str
    data: bytes
    status: str
    headers: Mapping[str, str] = _NO_HEADERS
    flaw: Flaw | None = None
    raw: bytes = b""


class Subscription:
    """One subject heard, through every reconnect."""

    def __init__(
        self,
        subject: str,
        queue: str,
        handler: Callable[[Message], object],
        guard: Guard,
        flawed: Callable[[Message], object] | None = None,
        taker: Taker | None = None,
    ) -> None:
        self.subject = subject
        self.queue = queue
        self.handler = handler
        self.flawed = flawed
        self._guard = guard
        room = guard.room(subject)
        self._room = "" if room == PULL else room  # what streams deliver there has their subjects
        self._plain = guard.keyed and taker is None and guard.is_plain(subject)
        self.taker = taker
        self.client: Client | None = None
        self.session: Any = None

    async def receive(self, msg: Msg) -> None:
        """nats-py's way to hand a message on."""
        message = self._read(msg.subject, msg.reply, msg.data, msg.headers)
        if message is not None:
            self.hand_on(message)

    def came(self, messages: list[Raw]) -> None:
        """Messages as they came over the wire: verified first, then handed on."""
        opened = self._guard.open_fresh(messages) if self._plain else repeat(None)
        hand_on = self.hand_on
        for message in [*map(self._decoded, messages, opened)]:
            if message is not None:
                hand_on(message)

    def _decoded(self, raw: Raw, opened: bytes | Flaw | None = None) -> Message | None:
        """``opened``: what is sealed in it, or what is wrong with it, where that has been looked at."""
        subject, reply, data, headers = raw
        try:
            where, back = subject.decode(), reply.decode()
        except UnicodeDecodeError:
            log.warning("a message whose subjects are not UTF-8 was dropped")
            return None
        if opened is None:
            return self._read(where, back, data, Headers(headers) if headers else None)
        if isinstance(opened, bytes):
            return Message(where, back, opened, "", _NO_HEADERS, None, data)
        return Message(where, back, data, "", _NO_HEADERS, opened, data)

    def _read(
        self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None
    ) -> Message | None:
        if headers is None:
            status, headers = "", _NO_HEADERS
        else:
            status = headers.status if isinstance(headers, Headers) else headers.get("Status", "")
        if self.taker is not None and not status:
            self._take(self.taker, data)
            return None
        if not self._guard.keyed and data[:4] != MAGIC:
            return Message(subject, reply, data, status, headers)
        guard = self._guard
        opened = guard.open(self._room or guard.room(subject), subject, reply, data, status, headers)
        if isinstance(opened, Flaw):
            return Message(subject, reply, data, status, headers, opened, data)
        return Message(subject, reply, opened, status, headers, None, data)

    def _take(self, taker: Taker, data: bytes) -> None:
        try:
            take_whole(data, taker, self._guard.overhead)
        except Exception:
            log.exception("a message on %s could not be handled", self.subject)

    def hand_on(self, message: Message) -> None:
        """Call who hears it; whatever that raises must not end the subscription."""
        try:
            if message.flaw is None:
                self.handler(message)
            elif self.flawed is not None:
                self.flawed(message)
        except Exception:
            log.exception("a message on %s could not be handled", message.subject)
