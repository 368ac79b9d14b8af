"""Messages in and out of nats-py's connection without its tasks and copies.

Over TCP and TLS they are written to the connection's own transport, large ones
piece by piece, and read by a ``Reader``. Over WebSockets they take nats-py's
usual way; callers need not know which it is.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from genro_nats.codec.frame import Buffer, size
from genro_nats.transport.reader import HEAD, Reader, Taker

__all__ = ["limit_unsent", "read_directly", "send", "take_whole", "write_pending"]

_FULL: Final = 1 << 20  # bytes that wait in the transport from which on nats-py writes, which waits for it


def read_directly(client: Client) -> Reader | None:
    """Read a connection that has no subscriptions yet by a ``Reader``; None: it does not allow that."""
    writer = _writer(client)
    if writer is None:
        return None
    reader = Reader(writer.transport, writer.transport.get_protocol())
    writer.transport.set_protocol(reader)
    return reader


def limit_unsent(client: Client, limit: int) -> None:
    """Let the system take no more than ``limit`` bytes that can't leave yet, where it knows how."""
    writer = _writer(client)
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if writer is not None and option is not None:
        with contextlib.suppress(OSError):
            writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, limit)


def take_whole(data: Buffer, taker: Taker, extra: int) -> None:
    """Hand a message that came nats-py's way to a taker."""
    head = HEAD + extra
    feed = taker(bytes(data[:head]), len(data))
    if feed is not None and len(data) > head:
        feed(memoryview(data)[head:])


async def send(
    client: Client, subject: str, reply: str, pieces: Sequence[Buffer], headers: dict[str, str], block: bytes
) -> None:
    """Publish one message, given in pieces; waits while the connection has much to send.

    ``block``: the headers as they go over the wire; empty: none.

    Raises:
        OSError: the connection is gone.
        nats.errors.Error: as nats-py's ``publish``.
    """
    writer = _writer(client)
    if writer is None:
        await client.publish(subject, b"".join(pieces), reply, headers or None)
        return
    transport = writer.transport
    if transport.is_closing():
        raise ConnectionResetError("the connection is closing")
    length = sum(map(size, pieces)) + len(block)
    where = f"{subject} {reply}" if reply else subject
    command = f"HPUB {where} {len(block)} {length}\r\n" if block else f"PUB {where} {length}\r\n"
    # Nothing waits in between, so nothing of nats-py's can come in between.
    transport.write(b"".join([command.encode(), block, pieces[0]]))
    for piece in pieces[1:]:
        transport.write(piece)
    transport.write(b"\r\n")
    await writer.drain()


def write_pending(client: Client) -> bool:
    """Write what nats-py has pending, without a turn of the loop in which its flusher would.

    False: it can't be, or much is unsent, and the flusher, which waits, has to.
    """
    writer = _writer(client)
    if writer is None:
        return False
    transport = writer.transport
    if transport.is_closing() or transport.get_write_buffer_size() > _FULL:
        return False
    pending, client._pending = client._pending, []
    client._pending_data_size = 0
    transport.writelines(pending)
    return True


def _writer(client: Client) -> Any:
    """nats-py's stream writer; None where it has none."""
    carrier = client._transport
    return carrier._io_writer if isinstance(carrier, TcpTransport) else None
