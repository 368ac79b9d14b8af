"""Requests and their replies: one inbox per connection, the last token of the subject names the request.

A connection that is lost ends its open requests at once: whether they were
carried out is unknown, and who asked must know whether asking again is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, NamedTuple

from genro_nats.codec.frame import Buffer
from genro_nats.errors import (
    ConnectionLostError,
    ExecutorError,
    PermissionDeniedError,
    StreamUnavailableError,
)
from genro_nats.transport.denials import Denied
from genro_nats.transport.nats import Connection, Message, Subscription, When

__all__ = ["OpenRequest", "Requester"]

_FEW: Final = 2
_LARGE: Final = 1 << 16  # bytes from which on a message does not go through nats-py's buffers
_SWEEP: Final = 0.1  # seconds between two looks for requests without an answer
_LONGER: Final = 60.0  # seconds that a request may take beyond its time, while a large message comes in
_READS: Final = tuple(f"$JS.API.{what}." for what in ("DIRECT.GET", "STREAM.INFO", "CONSUMER.INFO"))


class OpenRequest(NamedTuple):
    """A request that was sent; give it to ``Requester.reply`` or ``Requester.forget``."""

    token: str
    subject: str
    reply: asyncio.Future[Message]


class Requester:
    """Sends requests and finds the replies. ``inbox``: a subject of its own, ending in a dot."""

    def __init__(self, connection: Connection, inbox: str) -> None:
        self._connection = connection
        self._inbox = inbox
        self._tokens = count(1)
        self._open: dict[str, OpenRequest] = {}
        self._series: dict[str, tuple[str, asyncio.Queue[Message | ExecutorError]]] = {}
        self._subscription: Subscription | None = None
        self._refusal: Denied | None = None  # the inbox can't be heard
        self._limits: dict[str, tuple[float, float, OpenRequest]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._arriving: object = None  # how far a large message had come at the last look
        self._moved_at = -inf

    async def start(self) -> None:
        """Hear replies from now on. Can be repeated."""
        if self._subscription is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._connection.on_down.append(self._fail_all)
        self._connection.denials.listeners.append(self._denied)
        self._subscription = await self._connection.subscribe(f"{self._inbox}*", self._receive)

    async def aclose(self) -> None:
        """Hear no more; open requests end with ConnectionLostError. Can be repeated."""
        if self._subscription is None:
            return
        subscription, self._subscription = self._subscription, None
        self._connection.on_down.remove(self._fail_all)
        self._connection.denials.listeners.remove(self._denied)
        self._fail_all()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self._connection.unsubscribe(subscription)

    async def send(
        self, subject: str, data: Buffer = b"", headers: dict[str, str] | None = None
    ) -> OpenRequest:
        """Send a request without waiting for its reply.

        Raises:
            PayloadTooLargeError: more than the server takes.
            ConnectionLostError: there is no server now; nothing was sent.
            PermissionDeniedError: the server does not let this user hear answers.
        """
        if self._refusal is not None:
            raise self._refused()
        token = str(next(self._tokens))
        reply: asyncio.Future[Message] = self._loop.create_future()
        request = self._open[token] = OpenRequest(token, subject, reply)
        try:
            if len(data) > _LARGE:
                await self._connection.send_pieces(subject, [data], self._inbox + token, headers)
            elif not self._connection.publish_now(subject, data, self._inbox + token, headers):
                await self._connection.publish(subject, data, self._inbox + token, headers)
        except BaseException:
            self._drop(token, reply)
            raise
        return request

    def post(
        self, subject: str, data: Buffer, block: bytes, timeout: float, when: When = When.SOON
    ) -> OpenRequest | None:
        """As ``send``, within this turn of the loop; None: it could not be, use ``send``.

        Its future fails with StreamUnavailableError after ``timeout`` seconds. ``block`` and
        ``when``: as ``Connection.post``.
        """
        token = str(next(self._tokens))
        if self._refusal is not None or not self._connection.post(
            subject, data, self._inbox + token, block, when
        ):
            return None
        request = OpenRequest(token, subject, self._loop.create_future())
        self._open[token] = request
        self._limit(request, timeout)
        return request

    @property
    def alone(self) -> bool:
        """Does hardly anything wait for a reply?"""
        return len(self._open) <= _FEW

    def _limit(self, request: OpenRequest, timeout: float) -> None:
        self._limits[request.token] = (self._loop.time() + timeout, timeout, request)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    async def reply(self, request: OpenRequest, timeout: float) -> Message:
        """The reply to what was sent; its ``status`` is "503" if nobody listens there.

        Silence is looked for in all open requests together, a few times a second: a timer for
        each would cost more than sending it. While a large message comes in over a slow link, and for
        ``timeout`` seconds after its last byte, an answer that is behind it is not late, for a minute more.

        Raises:
            StreamUnavailableError: no reply within ``timeout`` seconds.
            ConnectionLostError: the server went away meanwhile.
            PermissionDeniedError: the server forbids the request to this user.
        """
        try:
            if not request.reply.done() and request.token not in self._limits:
                self._limit(request, timeout)
            return await request.reply
        finally:
            self._open.pop(request.token, None)
            self._limits.pop(request.token, None)

    def _sweep(self) -> None:
        """End requests that nobody answered in time."""
        now = self._loop.time()
        arriving = self._connection.arriving
        if arriving is not None and arriving != self._arriving:
            self._moved_at = now
        self._arriving = arriving
        for limit, timeout, request in list(self._limits.values()):
            late = limit <= now and (self._moved_at + timeout <= now or limit + _LONGER <= now)
            if late and not request.reply.done():
                self._open.pop(request.token, None)
                self._limits.pop(request.token, None)
                waited = timeout if now - limit < 1.0 else round(now - limit + timeout)
                request.reply.set_exception(_silent(request.subject, waited))
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep) if self._limits else None

    def forget(self, request: OpenRequest) -> None:
        """Wait for its reply no longer."""
        self._drop(request.token, request.reply)

    async def request(
        self,
        subject: str,
        data: Buffer = b"",
        headers: dict[str, str] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Message:
        """Send a request and wait for its reply. Raises as ``send`` and ``reply``."""
        return await self.reply(await self.send(subject, data, headers), timeout)

    async def series(self, subject: str, data: Buffer = b"", *, timeout: float = 5.0) -> list[Message]:
        """All replies to one request, up to one with a status, which is the last of the list.

        ``timeout``: seconds from one reply to the next. Raises as ``request``.
        """
        if self._refusal is not None:
            raise self._refused()
        token = str(next(self._tokens))
        replies: asyncio.Queue[Message | ExecutorError] = asyncio.Queue()
        self._series[token] = (subject, replies)
        try:
            await self._connection.publish(subject, data, self._inbox + token)
            found: list[Message] = []
            while not found or not found[-1].status:
                async with asyncio.timeout(timeout):
                    message = await replies.get()
                if isinstance(message, ExecutorError):
                    raise message
                found.append(message)
            return found
        except TimeoutError:
            raise _silent(subject, timeout) from None
        finally:
            del self._series[token]

    def _receive(self, message: Message) -> None:
        token = message.subject.rpartition(".")[2]
        request = self._open.pop(token, None)
        self._limits.pop(token, None)
        if request is None:
            series = self._series.get(token)
            if series is not None:
                series[1].put_nowait(message)
        elif not request.reply.done():
            request.reply.set_result(message)

    def _drop(self, token: str, reply: asyncio.Future[Message]) -> None:
        self._open.pop(token, None)
        if not reply.cancel() and not reply.cancelled():
            reply.exception()  # looked at, so that asyncio does not report it as unseen

    def _fail_all(self) -> None:
        self._refusal = None
        self._fail(list(self._open.values()), list(self._series.values()), self._lost)

    def _denied(self, denied: Denied) -> bool:
        """The server forbids some of what is asked, or to hear any answer."""
        if not denied.publishing:
            if not denied.meets(f"{self._inbox}*"):
                return False
            self._refusal = denied
            self._fail(list(self._open.values()), list(self._series.values()), self._refused)
            return True
        requests = [request for request in self._open.values() if denied.meets(request.subject)]
        series = [one for one in self._series.values() if denied.meets(one[0])]
        self._fail(requests, series, denied.error)
        return bool(requests or series)

    def _fail(
        self,
        requests: list[OpenRequest],
        series: list[tuple[str, asyncio.Queue[Message | ExecutorError]]],
        error: Callable[[str], ExecutorError],
    ) -> None:
        for request in requests:
            self._open.pop(request.token, None)
            if not request.reply.done():
                request.reply.set_exception(error(request.subject))
        for subject, replies in series:
            replies.put_nowait(error(subject))

    def _refused(self, _subject: str = "") -> PermissionDeniedError:
        assert self._refusal is not None
        return self._refusal.error(f"{self._inbox}*")

    def _lost(self, _subject: str = "") -> ConnectionLostError:
        shown = self._connection.shown
        return ConnectionLostError(f"The connection to {shown} was lost before the reply.", url=shown)


def _silent(subject: str, timeout: float) -> StreamUnavailableError:
    unknown = "" if subject.startswith(_READS) else "; the request may have been carried out"
    return StreamUnavailableError(
        f"No reply on {subject} within {timeout:g} s{unknown}.", subject=subject, silent=True
    )
