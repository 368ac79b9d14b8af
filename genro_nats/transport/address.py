"""Which server to connect to and as whom, resolved anew for each attempt."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from genro_nats.config import EMBEDDED, PoolOptions, masked_url, server_urls
from genro_nats.errors import ConfigurationError
from genro_nats.transport.keyfiles import check_key_files

__all__ = ["Address", "Target"]

_WEB: Final = ("ws://", "wss://")


class Target(NamedTuple):
    """What nats-py's ``connect`` takes: servers, and credentials by its own names."""

    servers: list[str]
    credentials: dict[str, Any]

    @property
    def shown(self) -> str:
        """The servers without secrets, for messages."""
        return ", ".join(masked_url(server) for server in self.servers)


class Address:
    """Server addresses and credentials of a pool or worker.

    Raises ConfigurationError for a combination that can't work.
    """

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._urls = server_urls(options.url)
        self._embedded: Any = None
        if any(url.startswith(_WEB) for url in self._urls):
            _need("aiohttp", "websocket", "WebSocket addresses (ws://, wss://)")
        if options.nkey_seed_file or options.credentials_file:
            _need("nkeys", "nkeys", "nkey and credentials files")
            check_key_files(options)
        self._static = self._credentials()

    @property
    def embedded(self) -> bool:
        """Is it the embedded server?"""
        return self._urls == (EMBEDDED,)

    @property
    def secured(self) -> bool:
        """Is every server on this machine, so that the network reaches none of them?"""
        return self.embedded or all(map(_on_loopback, self._urls))

    async def resolve(self) -> Target:
        """Where to connect now. An embedded server is started, or found again after it moved."""
        if not self.embedded:
            return Target(list(self._urls), self._static)
        if self._embedded is None or not self._embedded.running:
            await asyncio.to_thread(self._start_embedded)
        server = self._embedded
        return Target([server.url], {"user": server.user, "password": server.password})

    async def release(self) -> None:
        """Stop the embedded server if it was started here."""
        if self._embedded is not None:
            server, self._embedded = self._embedded, None
            await asyncio.to_thread(server.stop)

    def _start_embedded(self) -> None:
        # Credentials and port change with each new owner: a lost server is looked up
        # again, never reconnected to blindly (another local user could own its old port).
        from genro_nats.server import embedded_connection  # only for url="embedded"

        self._embedded = embedded_connection()

    def _credentials(self) -> dict[str, Any]:
        options = self._options
        given = {
            "user": options.user,
            "password": options.password,
            "token": options.token,
            "nkeys_seed": options.nkey_seed_file,
            "user_credentials": options.credentials_file,
            "tls_hostname": options.tls_hostname,
            "tls": _tls(options) if _wants_tls(options, self._urls) else None,
        }
        return {name: value for name, value in given.items() if value is not None}


def _on_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name, whatever it begins with
        return False


def _wants_tls(options: PoolOptions, urls: tuple[str, ...]) -> bool:
    return bool(options.tls_ca or options.tls_cert) or any(
        url.startswith(("tls://", "wss://")) for url in urls
    )


def _tls(options: PoolOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key)
        if options.tls_hostname:
            _expect(context, options.tls_hostname)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The TLS files can't be used (tls_ca, tls_cert, tls_key): {error}"
        ) from error
    return context


def _expect(context: ssl.SSLContext, hostname: str) -> None:
    """Verify this name on every connection: nats-py tells it to TLS sockets, but not to WebSockets."""
    wrap = context.wrap_bio

    def wrap_bio(*args: Any, **given: Any) -> ssl.SSLObject:
        return wrap(*args, **{**given, "server_hostname": hostname})

    context.wrap_bio = wrap_bio  # type: ignore[method-assign]


def _need(module: str, extra: str, what: str) -> None:
    try:
        __import__(module)
    except ImportError:
        raise ConfigurationError(f'{what} need an extra: pip install "genro-nats[{extra}]".') from None
