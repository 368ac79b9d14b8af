"""A connection to NATS that comes back by itself, on nats-py.

nats-py's own reconnecting is off: a client that lost its server is thrown
away, and a new one is made, subscribed, and only then shown as connected.
(Its own way republishes before others have resubscribed, can go deaf after a
cancelled flush, and gives up for good after an oversized message.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError
from nats.errors import Error as NatsError

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConfigurationError, ConnectionLostError, ExecutorError, PayloadTooLargeError
from genro_nats.transport.abandoned import drop_task
from genro_nats.transport.address import Address, Target
from genro_nats.transport.backoff import backoff
from genro_nats.transport.headers import Headers
from genro_nats.transport.transfer.cutter import Taker
from genro_nats.transport.transfer.raw import cut, send, take_whole, write_pending

__all__ = ["Connection", "Message", "Subscription", "When", "header_block"]

log: Final = logging.getLogger("genro_nats.transport")

_BACKOFF: Final = (0.05, 2.0)  # seconds, first and last, between attempts to reconnect; jittered
_PING: Final = 5  # seconds; a dead socket is noticed after two unanswered ones
_END: Final = b"\r\n"
_TURNS: Final = 3  # of the event loop
_AT_ONCE: Final = 1 << 20  # bytes pending below which nats-py takes a message without waiting
_CLOSE_TIMEOUT: Final = 2.0  # seconds
_DROP_TIMEOUT: Final = 0.1  # seconds for a client that never was up: one whose TLS failed never closes well
_PENDING_MESSAGES: Final = 1_000_000  # received and not yet handled, per subscription
_PENDING_BYTES: Final = 1 << 30
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_SUBJECTS: Final = 2048  # characters; a server takes 4096 bytes for a command


class _NoTLSError(NatsError):
    """TLS was asked for, and the server speaks without."""


class When(Enum):
    """How long a message may wait for others that go in the same write; many small ones keep two machines busy.

    ``NOW``: not at all, it is the only one. ``SOON``: for those of this turn of the event loop.
    ``LATER``: for those of the next few turns.
    """

    NOW = auto()
    SOON = auto()
    LATER = auto()


class Message(NamedTuple):
    """A received message. ``status``: the server's own word in place of a reply, such as "503"."""

    subject: str
    reply: str
    data: bytes
    status: str
    headers: Mapping[str, str] = _NO_HEADERS


class _Client(Client):
    """nats-py's client without its lapses, handing each message on where it is received.

    That spares each message a queue and a task switch, and most of the time that its headers
    take; were ``_process_msg`` no longer called, messages would take nats-py's usual way. A
    message with undecodable bytes in its subjects does not make it deaf, a login in a URL is
    unquoted, and nothing secret goes over a plain connection where TLS was asked for.
    """

    direct: dict[int, Subscription]
    ended: Callable[[], None]

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except OSError as error:
            # It meant to send what was left, and would never say that it is closed.
            log.debug("closing a connection: %r", error)
        finally:
            self.ended()

    def _connect_command(self) -> bytes:
        if self.options.get("tls") and not self._encrypted():
            raise _NoTLSError("nats: the server offers no TLS")
        self._take_login()
        return super()._connect_command()

    async def _connect_to_server(self, s: Any) -> None:
        seconds = self.options["connect_timeout"]
        if s.uri.scheme in ("ws", "wss"):
            import aiohttp  # an extra; it warns of the plain number that nats-py would hand it

            self.options["connect_timeout"] = aiohttp.ClientWSTimeout(ws_close=seconds)
        try:
            await super()._connect_to_server(s)
        finally:
            self.options["connect_timeout"] = seconds

    def _encrypted(self) -> bool:
        server = self._current_server
        scheme = server.uri.scheme if server else ""
        return scheme == "wss" or (scheme != "ws" and bool(self._server_info.get("tls_required")))

    def _take_login(self) -> None:
        uri = self._current_server.uri if self._current_server else None
        stated = self.options["user"] or self.options["token"]
        if uri is None or uri.username is None or stated:
            return
        if uri.password is None:
            self.options["token"] = unquote(uri.username)
        else:
            self.options["user"], self.options["password"] = unquote(uri.username), unquote(uri.password)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        subscription = self.direct.get(sid)
        if subscription is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            named = subject.decode(), reply.decode()
        except UnicodeDecodeError:
            log.warning("a message whose subjects are not UTF-8 was dropped")
            return
        subscription.hand_on(*named, data, Headers(headers) if headers else None)


class Subscription:
    """One subject heard, through every reconnect."""

    def __init__(
        self, subject: str, queue: str, handler: Callable[[Message], object], taker: Taker | None = None
    ) -> None:
        self.subject = subject
        self.queue = queue
        self.handler = handler
        self.taker = taker
        self.client: Client | None = None
        self.session: Any = None

    async def receive(self, msg: Msg) -> None:
        """nats-py's way to hand a message on."""
        self.hand_on(msg.subject, msg.reply, msg.data, msg.headers)

    def hand_on(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        """Call the handler; whatever it raises must not end the subscription."""
        if headers is None:
            status, headers = "", _NO_HEADERS
        else:
            status = headers.status if isinstance(headers, Headers) else headers.get("Status", "")
        try:
            if self.taker is not None and not status:
                take_whole(data, self.taker)
            else:
                self.handler(Message(subject, reply, data, status, headers))
        except Exception:
            log.exception("a message on %s could not be handled", subject)


class Connection:
    """Publish and subscribe, in one event loop, as long as it is open.

    ``on_up`` and ``on_down`` hold callbacks for each time the server comes and
    goes; the first connection does not count as coming.
    """

    def __init__(self, address: Address, name: str, connect_timeout: float = 5.0) -> None:
        self._address = address
        self._name = name
        self._connect_timeout = connect_timeout
        self._client: Client | None = None
        self._subscriptions: list[Subscription] = []
        self._returning: asyncio.Task[None] | None = None
        self._closing = False
        self._kicking: asyncio.Handle | None = None
        self._known: list[str] = []
        self._last_error: BaseException | None = None
        self.shown = ""
        self.up = asyncio.Event()
        self.max_payload = 1 << 20
        self.server_version = (0, 0, 0)
        self.on_up: list[Callable[[], object]] = []
        self.on_down: list[Callable[[], object]] = []
        self.on_error: list[Callable[[BaseException], object]] = []

    @property
    def connected(self) -> bool:
        """Is there a server now?"""
        return self.up.is_set()

    async def start(self) -> None:
        """Connect for the first time.

        Raises:
            ConnectionLostError: no server within ``connect_timeout``, or it refused the credentials.
        """
        self._loop = asyncio.get_running_loop()
        target = await self._address.resolve()
        self.shown = target.shown
        try:
            async with asyncio.timeout(self._connect_timeout):
                while self._client is None:
                    try:
                        await self._connect(target)
                    except (ExecutorError, TimeoutError):
                        raise
                    except Exception as error:
                        self._last_error = self._last_error or error
                        self._refuse_if_final(error, target)
                        await asyncio.sleep(_BACKOFF[0])
        except TimeoutError:
            await self._address.release()
            raise ConnectionLostError(
                f"No NATS server at {self.shown} within {self._connect_timeout:g} s"
                f" ({self._last_error or 'no answer'}). Start one (genro-nats server), or set url= or NATS_URL.",
                url=self.shown,
            ) from None
        except BaseException:
            await self._address.release()
            raise

    def _refuse_if_final(self, error: BaseException, target: Target) -> None:
        # Of several servers another one may do better: all of them get their turn.
        if len(target.servers) == 1 and (trouble := _tls_trouble(error) or _tls_trouble(self._last_error)):
            raise ConnectionLostError(
                f"TLS with the NATS server at {self.shown} failed: {trouble}. "
                "Check url, tls_ca, tls_cert and tls_key, and tls_hostname.",
                url=self.shown,
            ) from error
        final = error if isinstance(error, AuthorizationError) else self._last_error
        if isinstance(final, AuthorizationError) or "authorization" in str(final).lower():
            raise ConnectionLostError(
                f"The NATS server at {self.shown} refused the credentials. "
                "Check user and password, token, nkey_seed_file or credentials_file.",
                url=self.shown,
            ) from error

    async def _connect(self, target: Target) -> None:
        """One attempt: connect, subscribe to all, and be up."""
        client = _Client()
        client.direct = {}
        client.ended = lambda: self._on_closed(client)
        self._last_error = None
        servers = target.servers + [s for s in self._known if s not in target.servers]
        random.shuffle(servers)

        try:
            await self._open(client, servers, target.credentials)
            # Again for those that were added meanwhile: nobody else attaches them while there is no client.
            while new := [s for s in self._subscriptions if s.client is not client]:
                for subscription in new:
                    await self._attach(client, subscription)
                await client.flush()
            if client.is_closed:  # a flush does not mind
                raise ConnectionResetError("closed again at once")
        except BaseException:
            await self._close_client(client, _DROP_TIMEOUT)
            raise
        self._client = client
        self._known = (
            [server.geturl() for server in client.discovered_servers] if not self._address.embedded else []
        )
        self.max_payload = client.max_payload
        version = client.connected_server_version
        self.server_version = (version.major, version.minor, version.patch)
        self.up.set()

    async def _open(
        self,
        client: Client,
        servers: list[str],
        credentials: dict[str, Any],
    ) -> None:
        await client.connect(
            servers,
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._connect_timeout,  # type: ignore[arg-type]
            ping_interval=_PING,
            error_cb=self._on_error,
            skip_subject_validation=True,
            **credentials,
        )

    async def _attach(self, client: Client, subscription: Subscription) -> None:
        subscription.client = client
        subscription.session = await client.subscribe(
            subscription.subject,
            queue=subscription.queue,
            cb=subscription.receive,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )
        if isinstance(client, _Client):
            # No message can have come before this: the server has not been told yet.
            client.direct[subscription.session._id] = subscription
        if subscription.taker is not None:
            cut(client, subscription.session._id, subscription.taker)

    async def _on_error(self, error: BaseException) -> None:
        # Must never raise: nats-py would end a reading task.
        self._last_error = error
        log.debug("%s: %r", self._name, error)
        for listener in self.on_error:
            with contextlib.suppress(Exception):
                listener(error)

    def _on_closed(self, client: Client) -> None:
        if self._client is not client:
            return
        self._client = None
        self.up.clear()
        if self._closing:
            return
        log.warning("%s: lost the NATS server at %s", self._name, self.shown)
        for listener in self.on_down:
            listener()
        self._returning = self._loop.create_task(self._return())

    async def _return(self) -> None:
        """Connect again, for as long as it takes."""
        for attempt in range(1 << 30):
            await asyncio.sleep(backoff(attempt, *_BACKOFF) * random.uniform(0.5, 1.0))
            try:
                target = await self._address.resolve()
                self.shown = target.shown
                async with asyncio.timeout(self._connect_timeout * 2):
                    await self._connect(target)
            except Exception as error:
                # Whatever it is that answers there: this goes on.
                log.debug("%s: attempt %d to reconnect: %r", self._name, attempt + 1, error)
                continue
            log.info("%s: back at the NATS server at %s", self._name, self.shown)
            for listener in self.on_up:
                listener()
            return

    async def subscribe(
        self, subject: str, handler: Callable[[Message], object], queue: str = "", taker: Taker | None = None
    ) -> Subscription:
        """Hear a subject from now on; ``handler`` is called in order, in the event loop.

        With ``taker``, messages go there as they come in, and only the server's own words to the handler.
        """
        subscription = Subscription(subject, queue, handler, taker)
        self._subscriptions.append(subscription)
        if self._client is not None:
            await self._attach(self._client, subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Hear it no more. What the server has already sent is still handled before this returns."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        session = subscription.session
        if session is not None and self._client is not None:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                # It flushes, and a cancelled flush would leave the client deaf.
                await asyncio.shield(asyncio.ensure_future(session.drain()))

    async def publish(
        self, subject: str, data: Buffer, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send one message.

        Raises:
            PayloadTooLargeError: more than the server takes; it would cut the connection.
            ConnectionLostError: there is no server now.
        """
        client = self._sendable(subject, data, reply, headers)
        try:
            await client.publish(subject, data, reply, headers)  # type: ignore[arg-type]  # a bytearray does too
        except (NatsError, OSError) as error:
            raise self._lost(error) from error

    def publish_now(
        self, subject: str, data: Buffer, reply: str = "", headers: dict[str, str] | None = None
    ) -> bool:
        """Send one message within this turn of the loop; False: it was not, use ``publish``.

        Raises as ``publish``.
        """
        client = self._sendable(subject, data, reply, headers)
        if client.pending_data_size + len(data) > _AT_ONCE:
            return False
        step = client.publish(subject, data, reply, headers)  # type: ignore[arg-type]
        try:
            # It waits for nothing while little is pending; a task for it would cost a turn of the loop.
            step.send(None)
        except StopIteration:
            return True
        except (NatsError, OSError) as error:
            raise self._lost(error) from error
        step.close()
        return False

    def post(
        self, subject: str, data: Buffer, reply: str = "", block: bytes = b"", when: When = When.SOON
    ) -> bool:
        """As ``publish_now``, for what is sent very often: ``block`` holds the headers as ``header_block`` gives."""
        client = self._sendable(subject, data, reply)
        size = len(data) + len(block)
        if client.pending_data_size + size > _AT_ONCE or size > self.max_payload:
            return False
        if block:
            line = f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode()
            client._pending += (line + block, data, _END)  # type: ignore[arg-type]  # a bytearray does too
        else:
            line = f"PUB {subject} {reply} {size}\r\n".encode()
            client._pending += (line, data, _END)  # type: ignore[arg-type]
        client._pending_data_size += size + len(subject)
        if when is When.LATER:
            if self._kicking is None:
                self._kicking = self._loop.call_soon(self._linger, _TURNS)
        elif when is When.SOON or not write_pending(client):
            self._kick()
        return True

    def _linger(self, turns: int) -> None:
        """Wait some turns of the loop, in each of which more may come; timers are too coarse in some loops."""
        if turns:
            self._kicking = self._loop.call_soon(self._linger, turns - 1)
        else:
            self._kick()

    def _kick(self) -> None:
        """Let nats-py write what is pending."""
        if self._kicking is not None:
            self._kicking.cancel()
            self._kicking = None
        client = self._client
        if client is not None and client._flush_queue is not None and client._flush_queue.empty():
            client._flush_queue.put_nowait(self._loop.create_future())

    async def send_pieces(
        self,
        subject: str,
        pieces: Sequence[Buffer],
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """As ``publish``, for one large message given in pieces that need not be copied together.

        Unlike nats-py's ``publish`` it does not wait for ever when the server goes meanwhile, and
        can be cancelled. It may overtake small messages that were published before. Raises as ``publish``.
        """
        client = self._sendable(subject, pieces[0], reply, headers)
        try:
            await send(
                client, subject, reply, pieces, headers or {}, header_block(headers) if headers else b""
            )
        except (NatsError, OSError) as error:
            raise self._lost(error) from error

    def _sendable(
        self, subject: str, data: Buffer, reply: str, headers: Mapping[str, str] | None = None
    ) -> Client:
        """The client, if there is one and the server would take this message."""
        client = self._client
        if not subject or len(subject) + len(reply) > _MAX_SUBJECTS:
            raise PayloadTooLargeError(
                f"A subject and reply subject of {len(subject)} and {len(reply)} characters; "
                f"1 to {_MAX_SUBJECTS} together is what the NATS server takes.",
                size=len(subject) + len(reply),
                limit=_MAX_SUBJECTS,
            )
        size = len(data) + _header_size(headers) if headers else len(data)
        if size > self.max_payload:
            raise PayloadTooLargeError(
                f"A message of {size:,} bytes; the NATS server takes {self.max_payload:,} (max_payload).",
                size=size,
                limit=self.max_payload,
            )
        if client is None:
            raise ConnectionLostError(
                f"There is no connection to the NATS server at {self.shown}.", url=self.shown
            )
        return client

    def _lost(self, error: BaseException) -> ConnectionLostError:
        return ConnectionLostError(f"The connection to {self.shown} was lost: {error}", url=self.shown)

    async def flush(self) -> None:
        """Wait until the server has all that was published (or is gone)."""
        client = self._client
        if client is not None:
            # A cancelled flush would leave the client deaf, so it is never cancelled.
            await asyncio.sleep(0)
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await asyncio.shield(asyncio.ensure_future(client.flush()))

    async def aclose(self) -> None:
        """Leave the server. Can be repeated."""
        self._closing = True
        if self._returning is not None:
            self._returning.cancel()
        client, self._client = self._client, None
        self.up.clear()
        if client is not None:
            await self._close_client(client)
        await self._address.release()

    def abandon(self) -> None:
        """Drop the connection of an event loop that may never run again."""
        self._closing = True
        client = self._client
        tasks = [self._returning]
        if client is not None:
            tasks += [client._reading_task, client._ping_interval_task, client._flusher_task]
            tasks += [session._wait_for_msgs_task for session in client._subs.values()]
        for task in tasks:
            if task is not None and not task.done():
                drop_task(task)
        if client is not None and client._transport is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and the socket goes with it
                client._transport.close()  # type: ignore[no-untyped-call]

    async def _close_client(self, client: Client, limit: float = _CLOSE_TIMEOUT) -> None:
        try:
            with contextlib.suppress(NatsError, OSError, TimeoutError, ConfigurationError):
                async with asyncio.timeout(limit):
                    await client.close()
        finally:
            _let_go(client)


def _let_go(client: Client) -> None:
    """Close the socket of a client that was not closed in time; what it had to send is lost."""
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        with contextlib.suppress(AttributeError):  # asyncio's is closed for good: it has let go of its loop
            writer.transport.abort()


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they go over the wire, to be made once and sent often."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def _header_size(headers: Mapping[str, str]) -> int:
    """Bytes that the headers take of max_payload: a version line, `name: value` lines, an empty line."""
    text = sum(len(key) + len(value) + 4 for key, value in headers.items())
    wide = sum(len(value.encode()) - len(value) for value in headers.values() if not value.isascii())
    return 12 + text + wide


def _tls_trouble(error: BaseException | None) -> str:
    """What is wrong with TLS, if that is what the error is about."""
    cause = getattr(error, "certificate_error", getattr(error, "os_error", error))  # aiohttp's wrappers
    return str(cause) if isinstance(cause, ssl.SSLError | ssl.CertificateError | _NoTLSError) else ""
