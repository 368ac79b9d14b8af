"""A subject that is heard, through every reconnect, and the messages that come there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg

from genro_nats.codec.signing import MAGIC, Flaw
from genro_nats.transport.contexts import PULL
from genro_nats.transport.guard import Guard
from genro_nats.transport.headers import Headers
from genro_nats.transport.reader import Taker
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
        self.hand_on(msg.subject, msg.reply, msg.data, msg.headers)

    def came(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """A message as it came over the wire."""
        try:
            named = subject.decode(), reply.decode()
        except UnicodeDecodeError:
            log.warning("a message whose subjects are not UTF-8 was dropped")
            return
        if self._plain and not headers:
            self._verify(*named, b"%b\n%b" % (subject, reply), data)
        else:
            self.hand_on(*named, data, Headers(headers) if headers else None)

    def _verify(self, subject: str, reply: str, context: bytes, data: bytes) -> None:
        """As ``hand_on``, for what comes very often; ``context``: as of ``Contexts.heard``."""
        try:
            opened = self._guard.open_fresh(subject, context, data)
            if isinstance(opened, Flaw):
                self._flawed(Message(subject, reply, data, "", _NO_HEADERS, opened, data))
            else:
                self.handler(Message(subject, reply, opened, "", _NO_HEADERS, None, data))
        except Exception:
            log.exception("a message on %s could not be handled", subject)

    def _flawed(self, message: Message) -> None:
        if self.flawed is not None:
            self.flawed(message)

    def hand_on(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        """Call the handler, with what is verified; whatever it raises must not end the subscription."""
        if headers is None:
            status, headers = "", _NO_HEADERS
        else:
            status = headers.status if isinstance(headers, Headers) else headers.get("Status", "")
        try:
            if self.taker is not None and not status:
                take_whole(data, self.taker, self._guard.overhead)
            elif self._guard.keyed or data[:4] == MAGIC:
                self._verified(subject, reply, data, status, headers)
            else:
                self.handler(Message(subject, reply, data, status, headers))
        except Exception:
            log.exception("a message on %s could not be handled", subject)

    def _verified(
        self, subject: str, reply: str, data: bytes, status: str, headers: Mapping[str, str]
    ) -> None:
        guard = self._guard
        opened = guard.open(self._room or guard.room(subject), subject, reply, data, status, headers)
        if not isinstance(opened, Flaw):
            self.handler(Message(subject, reply, opened, status, headers, None, data))
        else:
            self._flawed(Message(subject, reply, data, status, headers, opened, data))
