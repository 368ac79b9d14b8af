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
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError
from nats.errors import Error as NatsError

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConfigurationError, ConnectionLostError, ExecutorError, PayloadTooLargeError
from genro_nats.transport.address import Address, Target

__all__ = ["Connection", "Message", "Subscription"]

log: Final = logging.getLogger("genro_nats.transport")

_BACKOFF: Final = (0.05, 2.0)  # seconds, first and last, between attempts to reconnect; jittered
_PING: Final = 5  # seconds; a dead socket is noticed after two unanswered ones
_AT_ONCE: Final = 1 << 20  # bytes pending below which nats-py takes a message without waiting
_CLOSE_TIMEOUT: Final = 2.0  # seconds
_PENDING_MESSAGES: Final = 1_000_000  # received and not yet handled, per subscription
_PENDING_BYTES: Final = 1 << 30
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_SUBJECTS: Final = 2048  # characters; a server takes 4096 bytes for a command


class Message(NamedTuple):
    """A received message. ``status``: the server's own word in place of a reply, such as "503"."""

    subject: str
    reply: str
    data: bytes
    status: str
    headers: Mapping[str, str] = _NO_HEADERS


class _Client(Client):
    """A client that a message with undecodable bytes in its subjects does not make deaf."""

    def _build_message(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._build_message(*args, **kwargs)
        except UnicodeDecodeError:
            log.warning("a message whose subjects are not UTF-8 was dropped")
            return None


class Subscription:
    """One subject heard, through every reconnect."""

    def __init__(self, subject: str, queue: str, handler: Callable[[Message], object]) -> None:
        self.subject = subject
        self.queue = queue
        self.handler = handler
        self.client: Client | None = None
        self.session: Any = None

    async def receive(self, msg: Msg) -> None:
        """Hand a message on; whatever the handler raises must not end the subscription."""
        headers = msg.headers
        status = headers.get("Status", "") if headers else ""
        try:
            self.handler(Message(msg.subject, msg.reply, msg.data, status, headers or _NO_HEADERS))
        except Exception:
            log.exception("a message on %s could not be handled", msg.subject)


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
        self._known: list[str] = []
        self._last_error: BaseException | None = None
        self.shown = ""
        self.up = asyncio.Event()
        self.up_since = 0.0
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
                    except (OSError, NatsError) as error:
                        self._refuse_if_final(error)
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

    def _refuse_if_final(self, error: BaseException) -> None:
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
        self._last_error = None
        servers = target.servers + [s for s in self._known if s not in target.servers]
        random.shuffle(servers)

        async def closed() -> None:
            self._on_closed(client)

        await client.connect(
            servers,
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._connect_timeout,  # type: ignore[arg-type]
            ping_interval=_PING,
            error_cb=self._on_error,
            closed_cb=closed,
            skip_subject_validation=True,
            **target.credentials,
        )
        try:
            # Again for those that were added meanwhile: nobody else attaches them while there is no client.
            while new := [s for s in self._subscriptions if s.client is not client]:
                for subscription in new:
                    await self._attach(client, subscription)
                await client.flush()
        except BaseException:
            await self._close_client(client)
            raise
        self._client = client
        self._known = (
            [server.geturl() for server in client.discovered_servers] if not self._address.embedded else []
        )
        self.max_payload = client.max_payload
        version = client.connected_server_version
        self.server_version = (version.major, version.minor, version.patch)
        self.up_since = self._loop.time()
        self.up.set()

    async def _attach(self, client: Client, subscription: Subscription) -> None:
        subscription.client = client
        subscription.session = await client.subscribe(
            subscription.subject,
            queue=subscription.queue,
            cb=subscription.receive,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )

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
        first, last = _BACKOFF
        for attempt in range(1 << 30):
            await asyncio.sleep(min(last, first * 2 ** min(attempt, 8)) * random.uniform(0.5, 1.0))
            try:
                target = await self._address.resolve()
                self.shown = target.shown
                async with asyncio.timeout(self._connect_timeout * 2):
                    await self._connect(target)
            except (OSError, NatsError, TimeoutError, ExecutorError) as error:
                log.debug("%s: attempt %d to reconnect: %r", self._name, attempt + 1, error)
                continue
            log.info("%s: back at the NATS server at %s", self._name, self.shown)
            for listener in self.on_up:
                listener()
            return

    async def subscribe(
        self, subject: str, handler: Callable[[Message], object], queue: str = ""
    ) -> Subscription:
        """Hear a subject from now on; ``handler`` is called in order, in the event loop."""
        subscription = Subscription(subject, queue, handler)
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
                await session.drain()

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

    async def _close_client(self, client: Client) -> None:
        with contextlib.suppress(NatsError, OSError, TimeoutError, ConfigurationError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await client.close()


def _header_size(headers: Mapping[str, str]) -> int:
    """Bytes that the headers take of max_payload: a version line, `name: value` lines, an empty line."""
    text = sum(len(key) + len(value) + 4 for key, value in headers.items())
    wide = sum(len(value.encode()) - len(value) for value in headers.values() if not value.isascii())
    return 12 + text + wide
