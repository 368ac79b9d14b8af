"""A TCP proxy that lets so many bytes through in a second, in each direction, over all of its connections."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

_ROOM: Final = 64 * 1024  # bytes that it takes ahead
_PIECE: Final = 16 * 1024


class SlowLink:
    """``moved``: bytes that went to the server, and to its clients."""

    def __init__(self, port: int, rate: float) -> None:
        self._server_port = port
        self._rate = rate
        self._free = [0.0, 0.0]  # when each direction has sent what it took
        self.moved = [0, 0]
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Where clients connect to, as a URL."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=_ROOM)
        return f"nats://127.0.0.1:{listening.getsockname()[1]}"

    async def aclose(self) -> None:
        """Cut all connections."""
        if self._server is not None:
            self._server.close()
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above, below = await asyncio.open_connection("127.0.0.1", self._server_port, limit=_ROOM)
        for way in (self._pump(reader, below, 0), self._pump(above, writer, 1)):
            pump = asyncio.create_task(way)
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        loop = asyncio.get_running_loop()
        writer.transport.set_write_buffer_limits(_ROOM)
        try:
            while data := await reader.read(_PIECE):
                self._free[way] = max(self._free[way], loop.time()) + len(data) / self._rate
                await asyncio.sleep(self._free[way] - loop.time())
                self.moved[way] += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one end has gone
        finally:
            writer.transport.abort()
