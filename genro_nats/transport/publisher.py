"""Publishing into streams: acknowledged, repeated with the same id while the stream is away, pipelined."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from genro_nats.codec.frame import Buffer
from genro_nats.errors import (
    ConnectionLostError,
    ExecutorError,
    SequenceConflictError,
    StreamError,
    StreamUnavailableError,
)
from genro_nats.transport.direct import get_last
from genro_nats.transport.jetstream import API, PATIENCE, JetStream, answer
from genro_nats.transport.nats import Message, When, header_block
from genro_nats.transport.requests import OpenRequest

__all__ = ["ID", "PubAck", "Publication", "Publisher"]

ID: Final = "Nats-Msg-Id"
_BLOCK: Final = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n"  # what most messages have for headers
_TIMEOUT: Final = 3.0  # seconds for one attempt
_LOOK: Final = 1.0  # seconds for a look whether a silent stream is there at all
_WRONG_SEQUENCE: Final = (10071, 10164)


class PubAck(NamedTuple):
    """The stream has the message. ``duplicate``: it had it before."""

    stream: str
    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """A message for a stream.

    ``msg_id``: what the stream knows it by; made up if empty, so that repeating is safe. None:
    nothing (the server remembers every id for a while); with an expected sequence repeating is
    safe anyway, if no two messages are the same.
    ``expected_last_subject_sequence``: refuse it unless this is the sequence of the last
    message on the subject (0: there is none), or on ``expected_subject``, a wildcard.
    ``ttl``: seconds until the stream drops it, at least 1.
    """

    subject: str
    data: Buffer = b""
    headers: Mapping[str, str] | None = None
    msg_id: str | None = ""
    expected_last_subject_sequence: int | None = None
    expected_subject: str = ""
    ttl: float | None = None

    def all_headers(self) -> dict[str, str]:
        """The headers as sent."""
        found = dict(self.headers or ())
        if self.msg_id is not None:
            found[ID] = self.msg_id or os.urandom(12).hex()
        if self.expected_last_subject_sequence is not None:
            found["Nats-Expected-Last-Subject-Sequence"] = str(self.expected_last_subject_sequence)
            if self.expected_subject:
                found["Nats-Expected-Last-Subject-Sequence-Subject"] = self.expected_subject
        if self.ttl is not None:
            found["Nats-TTL"] = f"{max(1000, math.ceil(self.ttl * 1000))}ms"
        return found


class _Sent(NamedTuple):
    """A publication on its way, with the headers that hold its id."""

    publication: Publication
    headers: dict[str, str]
    request: OpenRequest | ExecutorError


class _Pace:
    """How long to insist: ``patience`` seconds from the last message that was stored."""

    def __init__(self, patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self.stored()

    def stored(self) -> None:
        self._deadline = self._loop.time() + self._patience

    @property
    def left(self) -> float:
        return max(0.0, self._deadline - self._loop.time())


class Publisher:
    """Publishes into one stream. ``patience``: seconds to insist while the stream is away.

    Messages with an expected sequence need a stream with ``allow_direct``.
    """

    def __init__(self, js: JetStream, stream: str, patience: float = PATIENCE) -> None:
        self._js = js
        self._stream = stream
        self._patience = patience

    async def publish(
        self,
        subject: str,
        data: Buffer = b"",
        headers: Mapping[str, str] | None = None,
        *,
        msg_id: str | None = "",
        expected_last_subject_sequence: int | None = None,
        expected_subject: str = "",
        ttl: float | None = None,
    ) -> PubAck:
        """Store one message, as ``Publication`` says; it is stored when this returns.

        Raises:
            SequenceConflictError: another message is the last one on the subject.
            StreamError: the stream refused it, or another stream took it.
            PayloadTooLargeError: more than the server takes.
            StreamUnavailableError, ConnectionLostError: the stream stayed away for ``patience``
                seconds; the message may have been stored.
        """
        return await self.publish_one(
            Publication(subject, data, headers, msg_id, expected_last_subject_sequence, expected_subject, ttl)
        )

    async def publish_one(self, publication: Publication) -> PubAck:
        """Store one message; raises as ``publish``."""
        headers = publication.all_headers()
        requester = self._js.requester
        begun = time.monotonic()
        try:
            when = When.NOW if requester.alone else When.SOON
            plain = len(headers) == 1 and ID in headers
            block = _BLOCK % headers[ID].encode() if plain else header_block(headers)
            request = requester.post(publication.subject, publication.data, block, _TIMEOUT, when)
            if request is None:
                request = await requester.send(publication.subject, publication.data, headers)
            return await self._judge(await requester.reply(request, _TIMEOUT), publication, headers)
        except (StreamUnavailableError, ConnectionLostError):
            left = self._patience - (time.monotonic() - begun)
            if left <= 0:
                raise
            try:
                return await self._insist(publication, headers, left)
            except StreamUnavailableError as error:
                raise await self.explained(error) from None

    async def explained(self, error: ExecutorError) -> ExecutorError:
        """The error, with what can be known of it: a server whose disk is full says nothing to who stores."""
        if not (isinstance(error, StreamUnavailableError) and error.fields.get("silent")):
            return error
        info = f"{API}STREAM.INFO.{self._stream}"
        try:
            answer(await self._js.requester.request(info, timeout=_LOOK), info)
        except ExecutorError:
            return error
        return StreamUnavailableError(
            f"Stream {self._stream} is there, but stores nothing and says no word of it: the disk of its server may be "
            f"full (see its log, make room, and restart it if it goes on), or too few of its replicas are up. {error}",
            **error.fields,
        )

    async def publish_many(
        self, publications: Iterable[Publication], in_flight: int = 256
    ) -> AsyncIterator[PubAck | ExecutorError]:
        """Store many, at most ``in_flight`` unacknowledged; for each, in order, its ack or its error.

        Those repeated because the stream was away may be stored after later ones. It gives
        up insisting once nothing could be stored for ``patience`` seconds.
        """
        window: deque[_Sent] = deque()
        pace = _Pace(self._patience)
        try:
            for publication in publications:
                if len(window) >= in_flight:
                    yield await self._finish(window.popleft(), pace)
                window.append(await self._begin(publication))
            while window:
                yield await self._finish(window.popleft(), pace)
        finally:
            for sent in window:
                if isinstance(sent.request, OpenRequest):
                    self._js.requester.forget(sent.request)

    async def _begin(self, publication: Publication) -> _Sent:
        headers = publication.all_headers()
        try:
            request = await self._js.requester.send(publication.subject, publication.data, headers)
        except ExecutorError as error:
            return _Sent(publication, headers, error)
        return _Sent(publication, headers, request)

    async def _finish(self, sent: _Sent, pace: _Pace) -> PubAck | ExecutorError:
        publication, headers, request = sent
        try:
            try:
                if isinstance(request, ExecutorError):
                    raise request
                message = await self._js.requester.reply(request, _TIMEOUT)
                ack = await self._judge(message, publication, headers)
            except (StreamUnavailableError, ConnectionLostError):
                ack = await self._insist(publication, headers, pace.left)
        except ExecutorError as error:
            # Given as a value, it must not keep the frames it came through: they hold the data, and it.
            error.__traceback__ = error.__context__ = None
            return error
        pace.stored()
        return ack

    async def _insist(self, publication: Publication, headers: dict[str, str], patience: float) -> PubAck:
        async def attempt() -> PubAck:
            message = await self._js.requester.request(
                publication.subject, publication.data, headers, timeout=_TIMEOUT
            )
            return await self._judge(message, publication, headers)

        return await self._js.insist(attempt, patience)

    async def _judge(self, message: Message, publication: Publication, headers: dict[str, str]) -> PubAck:
        """The ack in a reply, or the error."""
        try:
            found = answer(message, publication.subject)
        except StreamError as error:
            if error.code not in _WRONG_SEQUENCE:
                raise
            return await self._resolve(error, publication, headers.get(ID))
        ack = PubAck(found["stream"], found["seq"], found.get("duplicate", False))
        if ack.stream != self._stream:
            raise StreamError(
                f"{publication.subject} belongs to stream {ack.stream}, not to {self._stream}: "
                "use another prefix or subject.",
                subject=publication.subject,
                code=0,
            )
        return ack

    async def _resolve(self, error: StreamError, publication: Publication, own: str | None) -> PubAck:
        """A repeated message conflicts with itself: a stream without replicas looks at sequences first."""
        subject = publication.expected_subject or publication.subject
        stored = await get_last(self._js, self._stream, subject)
        if (
            stored is not None
            and stored.flaw is None
            and (stored.headers.get(ID) == own if own else stored.data == publication.data)
        ):
            return PubAck(self._stream, stored.seq, True)
        raise SequenceConflictError(
            f"{subject}: another message was stored first.", subject=subject, code=error.code
        ) from error
