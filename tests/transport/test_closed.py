"""Writing to a connection that was closed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.transport import TcpTransport

from genro_nats.transport.closed import refuse_when_closed


def test_it_is_an_error_that_nats_py_expects() -> None:
    async def write() -> None:
        got: list[bytes] = []

        async def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(heard, "127.0.0.1", 0)
        transport: Any = TcpTransport()  # type: ignore[no-untyped-call]
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        transport._bare_io_reader = transport._io_reader = reader
        transport._bare_io_writer = transport._io_writer = writer
        refuse_when_closed(transport)
        transport.writelines([b"he", b"re"])
        assert await reader.read() == b""
        assert got == [b"here"]
        writer.transport.abort()
        await asyncio.sleep(0)  # it lets go of what it writes with
        with pytest.raises(ConnectionResetError):
            transport.writelines([b"lost"])
        server.close()

    asyncio.run(asyncio.wait_for(write(), 20))
