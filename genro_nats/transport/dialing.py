"""One attempt to connect, and which failures no further attempt would mend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import AuthorizationError

from genro_nats.errors import ConnectionLostError
from genro_nats.transport.address import Target
from genro_nats.transport.client import tls_trouble

__all__ = ["dial", "refuse_if_final"]

_PING: Final = 5  # seconds; a dead socket is noticed after two unanswered ones


async def dial(
    client: Client,
    servers: list[str],
    credentials: dict[str, Any],
    *,
    name: str,
    timeout: float,
    on_error: Callable[[Exception], Awaitable[None]],
) -> None:
    """Connect ``client`` to the first of ``servers`` that answers, each within ``timeout`` seconds."""
    await client.connect(
        servers,
        name=name,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        connect_timeout=timeout,  # type: ignore[arg-type]
        ping_interval=_PING,
        error_cb=on_error,
        skip_subject_validation=True,
        **credentials,
    )


def refuse_if_final(error: BaseException, last: BaseException | None, target: Target) -> None:
    """Raise ConnectionLostError if trying again can't help; ``last``: what nats-py reported besides."""
    # Of several servers another one may do better: all of them get their turn.
    if len(target.servers) == 1 and (trouble := tls_trouble(error) or tls_trouble(last)):
        raise ConnectionLostError(
            f"TLS with the NATS server at {target.shown} failed: {trouble}. "
            "Check url, tls_ca, tls_cert and tls_key, and tls_hostname.",
            url=target.shown,
        ) from error
    final = error if isinstance(error, AuthorizationError) else last
    if isinstance(final, AuthorizationError) or "authorization" in str(final).lower():
        raise ConnectionLostError(
            f"The NATS server at {target.shown} refused the credentials. "
            "Check user and password, token, nkey_seed_file or credentials_file.",
            url=target.shown,
        ) from error
