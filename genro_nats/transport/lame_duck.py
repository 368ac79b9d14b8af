"""A server announces that it will leave ("lame duck"): move to another one before it cuts us off.

With another server the connection moves within moments, and nothing is lost: the new client is
connected first, and takes over the queue groups before the old one leaves them; then what the old one
has still been sent is handled, then the rest moves. To those who use the connection it went down and
came up again, so calls and tasks in flight are asked after. Open streams would break by that: they get
a while to end. With no other server all goes on for as long as this one lets us, because whoever calls
us is connected to the same one; after that ``Connection`` comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nats.errors import Error as NatsError

from genro_nats.errors import ExecutorError
from genro_nats.transport.backoff import backoff
from genro_nats.transport.client import DirectClient, close_client

if TYPE_CHECKING:
    from genro_nats.transport.nats import Connection

__all__ = ["watch_lame_duck"]

log: Final = logging.getLogger("genro_nats.transport")

_PATIENCE: Final = 8.0  # seconds for open streams; a server waits 10 before it cuts the first client
_LOOK: Final = 0.05  # seconds
_PAUSES: Final = (0.2, 2.0)  # seconds, first and last, between attempts to find another server


class _GoneError(Exception):
    """The old client is not the connection's any more: it comes back by itself."""


def watch_lame_duck(connection: Connection, client: DirectClient) -> None:
    """Move when the server of this client says that it will leave."""
    client._lame_duck_mode_cb = partial(_noticed, connection, client)


async def _noticed(connection: Connection, client: DirectClient) -> None:
    if connection._client is client and connection.moving is None:
        connection.lame = True
        log.warning("%s: the NATS server at %s will leave", connection._name, connection.shown)
        for listener in connection.on_lame_duck:
            listener()
        connection.moving = asyncio.ensure_future(_move(connection, client))
        connection.moving.add_done_callback(partial(_moved, connection))


def _moved(connection: Connection, moving: asyncio.Future[Any]) -> None:
    connection.moving = None
    if not moving.cancelled() and (error := moving.exception()) is not None:
        log.warning("%s: could not move to another server: %r", connection._name, error)


async def _move(connection: Connection, old: DirectClient) -> None:
    with contextlib.suppress(_GoneError):
        fresh = await _elsewhere(connection, old)
        try:
            await _streams_ended(connection, old)
        except BaseException:
            await close_client(fresh)
            raise
        await _switch_or_begin_again(connection, old, fresh)
        log.info("%s: moved to another NATS server", connection._name)
        await close_client(old)


async def _switch_or_begin_again(connection: Connection, old: DirectClient, fresh: DirectClient) -> None:
    try:
        await _switch(connection, old, fresh)
    except BaseException:
        await close_client(fresh)
        if connection._client is not None:
            await close_client(connection._client)  # it may hear only half
        raise


async def _elsewhere(connection: Connection, old: DirectClient) -> DirectClient:
    """A client of another server, as soon as there is one."""
    lame = old._server_info.get("server_id")
    for attempt in range(1 << 30):
        fresh = connection._new_client()
        try:
            target = await connection._address.resolve()
            discovered = [] if connection._address.embedded else [s.geturl() for s in old.discovered_servers]
            connection._known = list(dict.fromkeys([*connection._known, *discovered]))
            async with asyncio.timeout(connection._connect_timeout):
                await connection._dial(fresh, target)
            if fresh._server_info.get("server_id") != lame:
                return fresh
        except (NatsError, ExecutorError, OSError, TimeoutError) as error:
            log.debug("%s: no other server: %r", connection._name, error)
        await close_client(fresh, _LOOK)
        _stay(connection, old)
        await asyncio.sleep(backoff(attempt, *_PAUSES))
        _stay(connection, old)
    raise AssertionError("unreachable")


async def _streams_ended(connection: Connection, old: DirectClient) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while any(streaming() for streaming in connection.streaming):
                await asyncio.sleep(_LOOK)
                _stay(connection, old)


async def _switch(connection: Connection, old: DirectClient, fresh: DirectClient) -> None:
    for subscription in [s for s in connection._subscriptions if s.queue]:
        _stay(connection, old)
        session = subscription.session
        await connection._attach(fresh, subscription)
        await old._send_unsubscribe(session._id)
    await _flush(fresh)
    for subscription in [s for s in connection._subscriptions if s.client is old]:
        await old._send_unsubscribe(subscription.session._id)
    # What it has been sent is handled before this returns, and what we said has gone.
    await _flush(old)
    _stay(connection, old)
    while new := [s for s in connection._subscriptions if s.client is not fresh]:
        for subscription in new:
            await connection._attach(fresh, subscription)
        await _flush(fresh)
        _stay(connection, old)
    if fresh.is_closed:
        raise ConnectionResetError("closed again at once")
    for listener in connection.on_down:
        listener()
    connection._take(fresh)
    for listener in connection.on_up:
        listener()


async def _flush(client: DirectClient) -> None:
    # A flush that is cancelled leaves the client deaf.
    await asyncio.sleep(0)
    await asyncio.shield(asyncio.ensure_future(client.flush()))


def _stay(connection: Connection, old: DirectClient) -> None:
    if connection._client is not old or connection._closing:
        raise _GoneError
