"""Three servers, a stream with three replicas, and its leader killed under load."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from genro_nats.errors import DeliveryForgottenError
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.direct import multi_last
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.streams import ConsumerSpec, StreamSpec, ensure_consumer, ensure_stream
from tests.transport.cluster import Cluster, joined, leader
from tests.transport.streaming import pulling, until

pytestmark = pytest.mark.anyio

COUNT = 3000


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
