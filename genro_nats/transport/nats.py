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
from collections.abc import Callable
from typing import Any, Final

from nats.errors import Error as NatsError

from genro_nats.errors import ConnectionLostError, ExecutorError
from genro_nats.transport.abandoned import drop_task
from genro_nats.transport.address import Address, Target
from genro_nats.transport.backoff import backoff
from genro_nats.transport.client import DirectClient, close_client, forsake
from genro_nats.transport.denials import Denials
from genro_nats.transport.dialing import dial, refuse_if_final
from genro_nats.transport.guard import Guard
from genro_nats.transport.headers import header_block
from genro_nats.transport.lame_duck import watch_lame_duck
from genro_nats.transport.reader import HEAD, Taker
from genro_nats.transport.sending import Sender, When
from genro_nats.transport.subscription import Message, Subscription
from genro_nats.transport.transfer.raw import read_directly

__all__ = ["Connection", "Message", "Subscription", "When", "header_block"]

log: Final = logging.getLogger("genro_nats.transport")

_BACKOFF: Final = (0.05, 2.0)  # seconds, first and last, between attempts to reconnect; jittered
_DROP_TIMEOUT: Final = 0.1  # seconds for a client that never was up: one whose TLS failed never closes well
_PENDING_MESSAGES: Final = 1_000_000  # received and not yet handled, per subscription
_PENDING_BYTES: Final = 1 << 30


class Connection(Sender):
    """Publish and subscribe, in one event loop, as long as it is open.

    ``on_up`` and ``on_down`` hold callbacks for each time the server comes and
    goes; the first connection does not count as coming. ``on_lame_duck``: callbacks for
    when the server says that it will leave, see ``lame_duck.py``; ``streaming``: whom to
    ask then whether streams are open, which would break.
    """

    def __init__(
        self, address: Address, name: str, connect_timeout: float = 5.0, guard: Guard | None = None
    ) -> None:
        super().__init__(guard or Guard())
        self._address = address
        self._name = name
        self._connect_timeout = connect_timeout
        self._subscriptions: list[Subscription] = []
        self._returning: asyncio.Task[None] | None = None
        self._closing = False
        self._known: list[str] = []
        self._last_error: BaseException | None = None
        self.up = asyncio.Event()
        self.server_version = (0, 0, 0)
        self.may_have_jetstream = True  # False: this server has none, nor others beside it
        self.on_up: list[Callable[[], object]] = []
        self.on_down: list[Callable[[], object]] = []
        self.denials = Denials(lambda: self.shown)
        self.on_error: list[Callable[[BaseException], object]] = [self.denials.heard]
        self.on_lame_duck: list[Callable[[], object]] = []
        self.streaming: list[Callable[[], bool]] = []
        self.moving: asyncio.Future[None] | None = None
        self.lame = False  # has the present server said that it will leave?

    @property
    def connected(self) -> bool:
        """Is there a server now?"""
        return self.up.is_set()

    @property
    def arriving(self) -> object:
        """How far a message has come of which only a part is here: another value once more of it is; None: none is."""
        reader = None if self._client is None else self._client.reader
        return None if reader is None else reader.arriving

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
                        refuse_if_final(error, self._last_error, target)
                        await asyncio.sleep(_BACKOFF[0])
        except TimeoutError:
            await self._address.release()
            raise ConnectionLostError(
                f"No NATS server at {self.shown} within {self._connect_timeout:g} s"
                f" ({self._last_error or 'no answer'}). Start one, or set url= or NATS_URL"
                " ('embedded': the one that `genro-nats server` runs).",
                url=self.shown,
            ) from None
        except BaseException:
            await self._address.release()
            raise

    async def _connect(self, target: Target) -> None:
        """One attempt: connect, subscribe to all, and be up."""
        client = self._new_client()
        self._last_error = None
        self.denials.forget()
        try:
            await self._dial(client, target)
            # Again for those that were added meanwhile: nobody else attaches them while there is no client.
            while new := [s for s in self._subscriptions if s.client is not client]:
                for subscription in new:
                    await self._attach(client, subscription)
                await client.flush()
            if client.is_closed:  # a flush does not mind
                raise ConnectionResetError("closed again at once")
        except BaseException:
            await close_client(client, _DROP_TIMEOUT)
            raise
        self._take(client)

    def _new_client(self) -> DirectClient:
        client = DirectClient()
        client.direct = {}
        client.ended = lambda: self._on_closed(client)
        return client

    async def _dial(self, client: DirectClient, target: Target) -> None:
        """Connect to any of the servers that are stated or known."""
        servers = target.servers + [s for s in self._known if s not in target.servers]
        random.shuffle(servers)
        await dial(
            client,
            servers,
            target.credentials,
            name=self._name,
            timeout=self._connect_timeout,
            on_error=self._on_error,
        )
        client.reader = read_directly(client)

    def _take(self, client: DirectClient) -> None:
        """From now on this is the client."""
        self._client = client
        self.lame = False
        watch_lame_duck(self, client)
        self._known = (
            [server.geturl() for server in client.discovered_servers] if not self._address.embedded else []
        )
        self.max_payload = client.max_payload - self.guard.overhead
        version = client.connected_server_version
        self.server_version = (version.major, version.minor, version.patch)
        info = client._server_info
        self.may_have_jetstream = bool(info.get("jetstream") or info.get("cluster"))
        self.up.set()

    async def _attach(self, client: DirectClient, subscription: Subscription) -> None:
        subscription.client = client
        subscription.session = await client.subscribe(
            subscription.subject,
            queue=subscription.queue,
            cb=subscription.receive,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )
        # No message can have come before this: the server has not been told yet.
        number = subscription.session._id
        client.direct[number] = subscription
        if client.reader is None:
            return
        if subscription.taker is None:
            client.reader.heard[b"%d" % number] = subscription
        else:
            client.reader.takers[b"%d" % number] = subscription.taker
            client.reader.head = HEAD + self.guard.overhead

    async def _on_error(self, error: BaseException) -> None:
        # Must never raise: nats-py would end a reading task.
        self._last_error = error
        log.debug("%s: %r", self._name, error)
        for listener in self.on_error:
            with contextlib.suppress(Exception):
                listener(error)

    def _on_closed(self, client: DirectClient) -> None:
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
        self,
        subject: str,
        handler: Callable[[Message], object],
        queue: str = "",
        taker: Taker | None = None,
        flawed: Callable[[Message], object] | None = None,
    ) -> Subscription:
        """Hear a subject from now on; ``handler`` is called in order, in the event loop.

        With ``taker``, messages go there as they come in, unverified, and only the server's own words to the
        handler. ``flawed`` gets what must not be believed; without it nobody does.
        """
        subscription = Subscription(subject, queue, handler, self.guard, flawed, taker)
        self._subscriptions.append(subscription)
        if self._client is not None:
            await self._attach(self._client, subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Hear it no more. What the server has already sent is still handled before this returns."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        session, client = subscription.session, self._client
        if session is not None and client is not None:
            # It flushes, and a cancelled flush would leave the client deaf.
            await asyncio.shield(asyncio.ensure_future(self._detach(client, session)))

    async def _detach(self, client: DirectClient, session: Any) -> None:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await session.drain()
        # Not before: what was under way belongs to it.
        client.direct.pop(session._id, None)
        if client.reader is not None:
            client.reader.forget(session._id)

    async def aclose(self) -> None:
        """Leave the server. Can be repeated."""
        self._closing = True
        for task in (self._returning, self.moving):
            if task is not None:
                task.cancel()
        self.write_held()
        client, self._client = self._client, None
        self.up.clear()
        if client is not None:
            await close_client(client)
        await self._address.release()

    def abandon(self) -> None:
        """Drop the connection of an event loop that may never run again."""
        self._closing = True
        if self._returning is not None and not self._returning.done():
            drop_task(self._returning)
        if self._client is not None:
            forsake(self._client)
