"""A message that a consumer delivered, and the words that settle it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from genro_nats.codec.signing import sealed_at
from genro_nats.errors import ConnectionLostError, DeliveryForgottenError, StreamError, StreamUnavailableError
from genro_nats.transport.jetstream import PATIENCE, JetStream
from genro_nats.transport.nats import Message, When

__all__ = ["ACK_PREFIX", "Delivery", "DeliveryInfo", "nak_body"]

ACK_PREFIX: Final = "$JS.ACK."
_SECOND: Final = 1_000_000_000
_TIMEOUT: Final = 0.5  # seconds for one attempt; then it is asked why


class DeliveryInfo(NamedTuple):
    """``num_delivered``: 1 for the first time; ``pending``: how many wait behind it.

    ``stored_at``: seconds since the epoch, the server's clock.
    """

    stream: str
    consumer: str
    num_delivered: int
    stream_seq: int
    consumer_seq: int
    stored_at: float
    pending: int


class Delivery:
    """One delivery of a message. Settle it once: by ``ack``, ``ack_sync``, ``nak`` or ``term``.

    The server takes these words also from a delivery that has since been given to
    somebody else: who must know that it still holds the message has to fence by itself.
    ``flaw``: why it must not be believed; then ``data`` is empty, and ``raw`` is what came.
    All raise ConnectionLostError if there is no server now.
    """

    __slots__ = ("_info", "_js", "_reply", "data", "flaw", "headers", "raw", "subject")

    def __init__(self, js: JetStream, message: Message) -> None:
        self._js = js
        self._reply = message.reply
        self._info: DeliveryInfo | None = None
        self.subject: str = message.subject
        self.flaw = message.flaw
        self.raw: bytes = message.raw or message.data
        self.data: bytes = b"" if message.flaw else message.data
        self.headers: Mapping[str, str] = message.headers

    @property
    def info(self) -> DeliveryInfo:
        """What the server says about this delivery."""
        if self._info is None:
            self._info = self._read_info()
        return self._info

    def _read_info(self) -> DeliveryInfo:
        tokens = self._reply.split(".")
        if len(tokens) > 9:  # with a domain and an account before the stream
            tokens = tokens[2:]
        stream, consumer, *numbers = tokens[2:9]
        delivered, stream_seq, consumer_seq, time, pending = map(int, numbers)
        return DeliveryInfo(stream, consumer, delivered, stream_seq, consumer_seq, time / _SECOND, pending)

    @property
    def pending(self) -> int:
        """As in ``info``, at a fraction of its cost."""
        if self._reply.count(".") > 8:
            return self.info.pending
        return int(self._reply[self._reply.rindex(".") + 1 :])

    @property
    def sealed_at(self) -> float | None:
        """When it was signed, by the clock of who did: seconds since the epoch; None: it is not."""
        return sealed_at(self.raw)

    async def ack(self) -> None:
        """It is done. May be lost if the server dies now: then it comes again."""
        await self._say(b"+ACK")

    async def ack_sync(self, patience: float = PATIENCE) -> None:
        """It is done, and the server has noted that.

        Raises:
            DeliveryForgottenError: the server crashed and does not know this delivery; it may come again.
            StreamUnavailableError, ConnectionLostError: no answer for ``patience`` seconds.
        """

        async def attempt() -> None:
            request = await self._js.requester.send(self._reply, b"+ACK")
            try:
                reply = await self._js.requester.reply(request, _TIMEOUT)
            except StreamUnavailableError:
                await self._refuse_if_forgotten()
                raise
            if reply.status == "503":
                raise StreamUnavailableError("The consumer of this message is away.", subject=self._reply)
            if reply.status or reply.data:
                raise StreamError("The consumer refused an acknowledgement.", subject=self._reply, code=0)

        await self._js.insist(attempt, patience)

    async def _refuse_if_forgotten(self) -> None:
        # A consumer's state reaches the disk a while after its deliveries. Words about one that
        # a crash has undone are ignored without an answer, until it is delivered again.
        info = self.info
        consumer = await self._js.api(f"CONSUMER.INFO.{info.stream}.{info.consumer}", patience=0.0)
        if consumer["delivered"]["stream_seq"] < info.stream_seq:
            raise DeliveryForgottenError(
                f"The NATS server crashed and forgot that it delivered message {info.stream_seq} of stream "
                f"{info.stream}; if it was not acknowledged before, it comes again.",
                subject=self._reply,
                code=0,
            )

    async def nak(self, delay: float = 0.0) -> None:
        """Deliver it again, to anybody, after ``delay`` seconds.

        The delay survives a restart of the server, to the second; a server killed within
        moments of hearing this forgets it, and ``ack_wait`` counts.
        """
        await self._say(nak_body(delay))

    def nak_now(self, delay: float = 0.0) -> None:
        """As ``nak`` within this turn of the loop, unless too much waits to be sent or there is no server.

        Then the message comes again after ``ack_wait``.
        """
        with contextlib.suppress(ConnectionLostError):
            self._js.connection.publish_now(self._reply, nak_body(delay))

    async def in_progress(self) -> None:
        """It is being worked on: the whole ``ack_wait`` begins again."""
        await self._say(b"+WPI")

    def ack_now(self, when: When) -> None:
        """``ack`` without waiting; ``when``: as ``Connection.post``."""
        if not self._js.connection.post(self._reply, b"+ACK", when=when):
            self._js.connection.publish_now(self._reply, b"+ACK")

    def renew(self) -> None:
        """``in_progress`` within this turn of the loop; where much waits to be sent, the next one must do."""
        self._js.connection.publish_now(self._reply, b"+WPI")

    async def term(self, reason: str = "") -> None:
        """Never deliver it again; a work queue drops it."""
        await self._say(f"+TERM {reason}".strip().encode())

    async def _say(self, word: bytes) -> None:
        if not self._js.connection.publish_now(self._reply, word):
            await self._js.connection.publish(self._reply, word)


def nak_body(delay: float = 0.0) -> bytes:
    """The word for: deliver it again after ``delay`` seconds."""
    return b"-NAK " + json.dumps({"delay": int(delay * _SECOND)}).encode() if delay > 0 else b"-NAK"
