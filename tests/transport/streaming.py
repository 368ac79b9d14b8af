"""What JetStream tests share: connections, streams, intakes, servers that fail, and bounded waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator

from genro_nats.config import PoolOptions
from genro_nats.message import new_id
from genro_nats.server import EmbeddedServer
from genro_nats.transport.address import Address
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.intake import Intake
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Connection
from genro_nats.transport.streams import ConsumerSpec, StreamSpec, ensure_consumer, ensure_stream


@contextlib.asynccontextmanager
async def connected(server: EmbeddedServer) -> AsyncIterator[JetStream]:
    """JetStream over a connection of its own."""
    options = PoolOptions(url=(server.url,), user=server.user, password=server.password)
    connection = Connection(Address(options), "test")
    await connection.start()
    js = JetStream(connection, f"test.reply.{new_id().hex()}.")
    await js.start()
    try:
        yield js
    finally:
        await js.aclose()
        await connection.aclose()


async def queue(js: JetStream, *, ack_wait: float = 15.0) -> str:
    """A new work queue with the consumer "all"; its name, the first token of its subjects."""
    name = f"q{new_id().hex()}"
    await ensure_stream(js, StreamSpec(name, (f"{name}.>",), retention="workqueue", allow_direct=True))
    await ensure_consumer(js, name, ConsumerSpec("all", ack_wait=ack_wait))
    return name


async def store(js: JetStream) -> str:
    """A new stream that keeps one message for each subject; its name, as of ``queue``."""
    name = f"s{new_id().hex()}"
    await ensure_stream(
        js,
        StreamSpec(name, (f"{name}.>",), max_messages_per_subject=1, allow_direct=True, allow_msg_ttl=True),
    )
    return name


@contextlib.asynccontextmanager
async def pulling(
    js: JetStream, name: str, handler: Callable[[Delivery], object], slots: int, heartbeat: float = 0.5
) -> AsyncIterator[Intake]:
    """An intake of the consumer "all"."""
    intake = Intake(js, name, ("all",), f"test.pull.{new_id().hex()}.", handler, heartbeat=heartbeat)
    intake.add_slots(slots)
    await intake.start()
    try:
        yield intake
    finally:
        await intake.aclose()


async def until(condition: Callable[[], object], limit: float = 10.0) -> float:
    """Poll until ``condition()`` is true; the seconds it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit, "not within the limit"
        await asyncio.sleep(0.005)
    return time.monotonic() - begin


@contextlib.contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """The server is stopped, not ended: its sockets stay open and nothing answers."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have been killed meanwhile
            os.kill(server.pid, signal.SIGCONT)


async def restart_killed(server: EmbeddedServer) -> None:
    """kill -9, and start again with the same store, without blocking the loop."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
