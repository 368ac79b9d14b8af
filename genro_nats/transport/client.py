"""nats-py's client without its lapses: its TLS, its logins, its way of handing messages on, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from nats.aio.client import Client
from nats.errors import Error as NatsError

from genro_nats.errors import ConfigurationError
from genro_nats.transport.abandoned import drop_task
from genro_nats.transport.closed import refuse_when_closed
from genro_nats.transport.reader import Reader
from genro_nats.transport.subscription import Subscription

__all__ = ["DirectClient", "NoTLSError", "close_client", "forsake", "tls_trouble"]

log: Final = logging.getLogger("genro_nats.transport")

_CLOSE_TIMEOUT: Final = 2.0  # seconds


class NoTLSError(NatsError):
    """TLS was asked for, and the server speaks without."""


class DirectClient(Client):
    """nats-py's client without its lapses, handing each message on where it is received.

    Where the connection allows it a ``Reader`` does that; over WebSockets ``_process_msg``, which
    spares each message a queue and a task switch. A message with undecodable bytes in its subjects
    does not make it deaf, a login in a URL is unquoted, and nothing secret goes over a plain
    connection where TLS was asked for.
    """

    reader: Reader | None = None
    direct: dict[int, Subscription]
    ended: Callable[[], None]

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except OSError as error:
            # It meant to send what was left, and would never say that it is closed.
            log.debug("closing a connection: %r", error)
        finally:
            self._release_writers()
            self.ended()

    async def _process_op_err(self, e: Exception) -> None:
        if not self.is_closed:
            # To a server that hangs nothing can be sent any more, and closing would wait for it to leave.
            _let_go(self)
        await super()._process_op_err(e)

    def _release_writers(self) -> None:
        """Who waits for what is pending to be written would wait for ever: its flusher has ended."""
        queue = self._flush_queue
        while queue is not None and not queue.empty():
            written = queue.get_nowait()
            if not written.done():
                written.set_result(None)

    def _connect_command(self) -> bytes:
        if self.options.get("tls") and not self._encrypted():
            raise NoTLSError("nats: the server offers no TLS")
        self._take_login()
        return super()._connect_command()

    async def _connect_to_server(self, s: Any) -> None:
        seconds = self.options["connect_timeout"]
        if s.uri.scheme in ("ws", "wss"):
            import aiohttp  # an extra; it warns of the plain number that nats-py would hand it

            self.options["connect_timeout"] = aiohttp.ClientWSTimeout(ws_close=seconds)
        try:
            await super()._connect_to_server(s)
            refuse_when_closed(self._transport)
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
        else:
            subscription.came([(subject, reply, data, headers)])


async def close_client(client: Client, limit: float = _CLOSE_TIMEOUT) -> None:
    """Send what is left, and leave the server; after ``limit`` seconds in any case."""
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


def forsake(client: Client) -> None:
    """Drop a client whose event loop may never run again."""
    tasks = [client._reading_task, client._ping_interval_task, client._flusher_task]
    tasks += [session._wait_for_msgs_task for session in client._subs.values()]
    for task in tasks:
        if task is not None and not task.done():
            drop_task(task)
    if client._transport is not None:
        with contextlib.suppress(RuntimeError):  # its loop is closed, and the socket goes with it
            client._transport.close()  # type: ignore[no-untyped-call]


def tls_trouble(error: BaseException | None) -> str:
    """What is wrong with TLS, if that is what the error is about."""
    cause = getattr(error, "certificate_error", getattr(error, "os_error", error))  # aiohttp's wrappers
    return str(cause) if isinstance(cause, ssl.SSLError | ssl.CertificateError | NoTLSError) else ""
