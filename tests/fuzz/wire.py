"""Messages by the thousand over a plain socket, and what a worker says that it has counted."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import nats

from genro_nats.codec.signing import MAGIC, SEAL_SIZE
from genro_nats.server import EmbeddedServer
from genro_nats.transport.guard import Guard
from genro_nats.transport.subjects import presence_ask

__all__ = ["Asker", "Heard", "Publisher", "resident"]


class Heard(NamedTuple):
    """A message as it went over the wire, seal included."""

    subject: str
    reply: str
    data: bytes
    headers: bytes = b""

    def command(self) -> bytes:
        """As a client publishes it."""
        where = f"{self.subject} {self.reply}".strip().encode()
        if not self.headers:
            return b"PUB %b %d\r\n%b\r\n" % (where, len(self.data), self.data)
        size = len(self.headers)
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (where, size, size + len(self.data), self.headers, self.data)


class Publisher:
    """A client that only publishes, as fast as the server takes it."""

    def __init__(self, server: EmbeddedServer) -> None:
        where = urlsplit(server.url)
        assert where.hostname is not None
        self._socket = socket.create_connection((where.hostname, where.port or 4222), 10)
        login = {"user": server.user, "pass": server.password, "verbose": False, "headers": True}
        self._socket.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\n")

    def send(self, messages: list[Heard]) -> None:
        """Publish these; they are with the server when it returns. Raises AssertionError for a server's error."""
        self._socket.sendall(b"".join(message.command() for message in messages) + b"PING\r\n")
        said = b""
        while not said.endswith(b"PONG\r\n"):
            piece = self._socket.recv(65536)
            assert piece, "the server cut us off"
            said += piece
            if said.endswith(b"PING\r\n"):
                self._socket.sendall(b"PONG\r\n")
        assert b"-ERR" not in said, said[-300:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


class Asker:
    """Asks the one worker of a prefix what it has counted, with its key if it has one."""

    def __init__(self, server: EmbeddedServer, prefix: str, guard: Guard) -> None:
        self._server = server
        self._prefix = prefix
        self._guard = guard
        self._client: Any = None

    async def __aenter__(self) -> Self:
        server = self._server
        self._client = await nats.connect(server.url, user=server.user, password=server.password)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def facts(self) -> dict[str, Any]:
        """The worker's presence."""
        inbox, subject = f"{self._prefix}.reply.=.asker.{os.urandom(4).hex()}", presence_ask(self._prefix)
        answer = await self._client.subscribe(inbox)
        await self._client.publish(subject, self._guard.seal(subject, [], inbox), reply=inbox)
        data = (await answer.next_msg(20)).data
        await answer.unsubscribe()
        shown: dict[str, Any] = json.loads(data[SEAL_SIZE:] if data[:4] == MAGIC else data)
        return shown

    async def counted(self, at_least: int, limit: float = 60.0) -> Counter[str]:
        """What was refused by reason, once that many were."""
        async with asyncio.timeout(limit):
            while True:
                found = Counter[str]((await self.facts())["distrusted"])
                if found.total() >= at_least:
                    return found
                await asyncio.sleep(0.02)


def resident(facts: dict[str, Any]) -> int:
    """Bytes of memory of a worker and its children."""
    children = [child["memory"] for pool in facts["pools"] for child in pool["children"]]
    return int(facts["memory"] + sum(children))
