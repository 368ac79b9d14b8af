"""Bare nats-py request/reply: the floor that the benchmark compares pools with.

It stands here because only the transport may import nats-py, and it uses nothing else of
ours: what a call over NATS costs is seen against a client and an echo without a pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg

__all__ = ["FloorClient", "connect_bare", "serve_echo"]

_TIMEOUT: Final = 60.0  # seconds


async def connect_bare(url: str, user: str, password: str) -> Client:
    """A nats-py client as it comes. Raises what nats-py raises."""
    client = Client()
    await client.connect(url, user=user, password=password, allow_reconnect=False)
    return client


class FloorClient:
    """A nats-py client that sends bytes to one subject."""

    def __init__(self, client: Client, subject: str) -> None:
        self._client = client
        self._subject = subject

    @classmethod
    async def connect(cls, url: str, user: str, password: str, subject: str) -> FloorClient:
        """A connected client. Raises what nats-py raises."""
        return cls(await connect_bare(url, user, password), subject)

    async def request(self, data: bytes) -> bytes:
        """The reply to ``data``, within 60 seconds."""
        return (await self._client.request(self._subject, data, timeout=_TIMEOUT)).data

    async def aclose(self) -> None:
        """Leave the server."""
        await self._client.close()


async def serve_echo(
    url: str, user: str, password: str, subject: str, ready: Callable[[], Any], stopped: asyncio.Event
) -> None:
    """Answer each request with its own bytes until ``stopped``; ``ready`` is called once it does."""
    client = await connect_bare(url, user, password)

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    try:
        await client.subscribe(subject, cb=echo)
        await client.flush()
        ready()
        await stopped.wait()
    finally:
        await client.close()
