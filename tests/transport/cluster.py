"""Three real nats-servers that form a cluster, and connections to it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from genro_nats.config import PoolOptions
from genro_nats.message import new_id
from genro_nats.server.binary import find_server
from genro_nats.transport.address import Address
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Connection


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


class Cluster:
    """Three nats-servers of this machine; ``kill`` ends one for good."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(6)
        self.urls = tuple(f"nats://127.0.0.1:{port}" for port in ports[:3])
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports[3:])
        self.processes = {}
        for number in range(3):
            config = directory / f"n{number}.conf"
            config.write_text(
                f'server_name: n{number}\nlisten: "127.0.0.1:{ports[number]}"\n'
                f'jetstream {{ store_dir: "{directory / f"n{number}"}" }}\n'
                f'cluster {{ name: c, listen: "127.0.0.1:{ports[3 + number]}", routes: [{routes}] }}\n'
            )
            self.processes[f"n{number}"] = subprocess.Popen(
                [find_server(), "-c", config, "-l", directory / f"n{number}.log"]
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(5)


@contextlib.asynccontextmanager
async def joined(cluster: Cluster) -> AsyncIterator[JetStream]:
    connection = Connection(Address(PoolOptions(url=cluster.urls)), "test")
    await connection.start()
    js = JetStream(connection, f"test.reply.{new_id().hex()}.")
    await js.start()
    try:
        yield js
    finally:
        await js.aclose()
        await connection.aclose()


async def leader(js: JetStream, name: str) -> str:
    found: str = (await js.api(f"STREAM.INFO.{name}"))["cluster"]["leader"]
    return found
