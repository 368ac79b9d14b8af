"""Three servers, a stream with three replicas, and its leader killed under load."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from genro_nats.config import PoolOptions
from genro_nats.errors import DeliveryForgottenError
from genro_nats.message import new_id
from genro_nats.server.binary import find_server
from genro_nats.transport.address import Address
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.direct import multi_last
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Connection
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.streams import ConsumerSpec, StreamSpec, ensure_consumer, ensure_stream
from tests.transport.streaming import pulling, until

pytestmark = pytest.mark.anyio

COUNT = 3000


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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        for name in cluster.processes:
            cluster.kill(name)


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


async def test_the_leader_is_killed_under_load(cluster: Cluster) -> None:
    async with joined(cluster) as js, joined(cluster) as worker_js:
        spec = StreamSpec("tasks", ("tasks.>",), retention="workqueue", replicas=3, allow_direct=True)
        await js.insist(lambda: ensure_stream(js, spec), 15)
        await js.insist(
            lambda: ensure_stream(js, StreamSpec("done", ("done.>",), replicas=3, allow_direct=True))
        )
        await ensure_consumer(js, "tasks", ConsumerSpec("all", ack_wait=2))
        done: Counter[bytes] = Counter()
        results = Publisher(worker_js, "done", patience=20)

        async def work(message: Delivery) -> None:
            await results.publish(f"done.{message.data.decode()}", msg_id=message.data.decode())
            with contextlib.suppress(DeliveryForgottenError):
                await message.ack_sync(20)
            done[message.data] += 1
            puller.add_slots()

        running: set[asyncio.Task[None]] = set()
        async with pulling(
            worker_js, "tasks", lambda m: running.add(asyncio.create_task(work(m))), 32
        ) as puller:
            items = (Publication(f"tasks.{n}", str(n).encode(), msg_id=str(n)) for n in range(COUNT))
            acks = 0
            async for outcome in Publisher(js, "tasks", patience=20).publish_many(items, 64):
                assert isinstance(outcome, PubAck), outcome
                acks += 1
                if acks == COUNT // 3:
                    cluster.kill(await leader(js, "tasks"))
            assert acks == COUNT
            await until(lambda: len(done) == COUNT, 25)
            await asyncio.gather(*running)
        assert (await js.api("STREAM.INFO.tasks"))["state"]["messages"] == 0
        found = await multi_last(js, "done", [f"done.{n}" for n in range(COUNT)])
        assert len(found) == COUNT
        assert (await js.api("STREAM.INFO.done"))["state"]["messages"] == COUNT
