"""Addresses of NATS servers: checked here, and their default from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from genro_nats.config.display import shown
from genro_nats.errors import ConfigurationError

__all__ = ["ALLOWED_URLS", "DEFAULT_URL", "EMBEDDED", "NATS_URL", "parse_urls", "server_urls"]

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
EMBEDDED: Final = "embedded"
NATS_URL: Final = "NATS_URL"
ALLOWED_URLS: Final = (
    "nats://, tls://, ws:// or wss:// addresses with a host (several as a list or separated by commas, "
    "websockets not mixed with others; %2C and %40 for a comma and an @ in a password), "
    f"or the single word {EMBEDDED!r}"
)
_WEB: Final = frozenset({"ws", "wss"})
_SCHEMES: Final = frozenset({"nats", "tls"}) | _WEB


def server_urls(url: Sequence[str] | str | None, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the addresses to connect to: `url`, else ``NATS_URL``, else the default on loopback.

    ``("embedded",)`` asks for the embedded server. Raises ConfigurationError that names ``NATS_URL``
    when the address there is wrong.
    """
    if url is not None:
        return _or_error("url", url)
    text = (os.environ if environ is None else environ).get(NATS_URL, "").strip()
    return _or_error(NATS_URL, text) if text else (DEFAULT_URL,)


def _or_error(where: str, url: Any) -> tuple[str, ...]:
    try:
        return parse_urls(url)
    except ValueError:
        pass  # its chain would carry the address, and with it a password
    raise ConfigurationError(f"{where} is {shown('url', url)}: use {ALLOWED_URLS}.", option="url")


def parse_urls(value: Any) -> tuple[str, ...]:
    """Return the addresses in `value`; ValueError for what `ALLOWED_URLS` doesn't allow."""
    pieces = value.split(",") if isinstance(value, str) else value
    if not isinstance(pieces, list | tuple) or not all(isinstance(piece, str) for piece in pieces):
        raise ValueError
    urls = tuple(piece.strip() for piece in pieces)
    if urls == (EMBEDDED,):
        return urls
    web = {_scheme(url) in _WEB for url in urls}
    if len(web) != 1:
        raise ValueError
    return urls


def _scheme(url: str) -> str:
    parts = urlsplit(url)
    # `.port` is read because it raises for a port that is none.
    usable = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0 and url.isprintable()
    if not usable or " " in url or "," in url:
        raise ValueError
    return parts.scheme
