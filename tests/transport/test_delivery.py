"""Deliveries: what the server says of them, how they are settled, and what kills of the server undo."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from genro_nats.errors import DeliveryForgottenError
from genro_nats.server import EmbeddedServer
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.streams import consumer_state
from tests.transport.streaming import connected, pulling, queue, restart_killed, until

pytestmark = pytest.mark.anyio


async def fill(js: JetStream, name: str, count: int, first: int = 0) -> None:
    items = [Publication(f"{name}.{n}", str(n).encode()) for n in range(first, first + count)]
    assert all([isinstance(o, PubAck) async for o in Publisher(js, name).publish_many(items)])


async def unsettled(js: JetStream, name: str) -> int:
    state = await consumer_state(js, name, "all")
    return state.pending + state.unacknowledged


async def until_settled(js: JetStream, name: str, limit: float = 10.0) -> None:
    begin = time.monotonic()
    while await unsettled(js, name):
        assert time.monotonic() - begin < limit, "not all settled"
        await asyncio.sleep(0.01)


async def test_a_backlog_with_slots_coming_free(js: JetStream) -> None:
    name = await queue(js)
    seen: list[bytes] = []
    busy = most = 0

    async def work(message: Delivery) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        seen.append(message.data)
        await asyncio.sleep(0)
        await message.ack()
        busy -= 1
        intake.add_slots()

    tasks: set[asyncio.Task[None]] = set()
    await fill(js, name, 3000)
    async with pulling(js, name, lambda m: tasks.add(asyncio.create_task(work(m))), 16) as intake:
        await until(lambda: len(seen) == 3000)
        await until_settled(js, name)
    assert sorted(map(int, seen)) == list(range(3000))
    assert most <= 16


async def test_what_the_server_says_about_a_delivery(js: JetStream) -> None:
    name = await queue(js)
    await Publisher(js, name).publish(f"{name}.x", b"data", {"X": "1"})
    await fill(js, name, 4)
    held: list[Delivery] = []
    async with pulling(js, name, held.append, 1):
        await until(lambda: held)
        info = held[0].info
        assert (held[0].subject, held[0].data, held[0].headers["X"]) == (f"{name}.x", b"data", "1")
        assert (info.stream, info.consumer, info.num_delivered) == (name, "all", 1)
        assert (info.stream_seq, info.consumer_seq, info.pending) == (1, 1, 4)
        assert abs(info.stored_at - time.time()) < 10


async def test_words_that_settle(js: JetStream) -> None:
    name = await queue(js)
    await fill(js, name, 3)
    held: list[Delivery] = []
    async with pulling(js, name, held.append, 8):
        await until(lambda: len(held) == 3)
        await held[0].ack_sync()
        await held[0].ack_sync()  # said again, as after a lost answer
        await held[1].term("unreadable: no frame")
        await held[2].nak()
        await until(lambda: len(held) == 4)
        assert (held[3].data, held[3].info.num_delivered) == (b"2", 2)
        await held[3].ack_sync()
        assert await unsettled(js, name) == 0
        assert (await js.api(f"STREAM.INFO.{name}"))["state"]["messages"] == 0


async def test_redelivery_after_ack_wait_unless_extended(js: JetStream) -> None:
    name = await queue(js, ack_wait=0.4)
    await fill(js, name, 2)
    held: list[Delivery] = []
    begin = time.monotonic()
    async with pulling(js, name, held.append, 8):
        await until(lambda: len(held) == 2)
        while len(held) == 2:
            assert time.monotonic() - begin < 5
            await held[1].in_progress()
            await asyncio.sleep(0.05)
        assert time.monotonic() - begin >= 0.4
        assert (held[2].data, held[2].info.num_delivered) == (b"0", 2)


async def test_nak_with_a_delay(js: JetStream) -> None:
    name = await queue(js)
    await fill(js, name, 1)
    held: list[Delivery] = []
    async with pulling(js, name, held.append, 2):
        await until(lambda: held)
        await held[0].nak(0.5)
        took = await until(lambda: len(held) == 2)
    assert 0.45 <= took < 2


async def test_a_delayed_nak_survives_a_kill_of_the_server(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await queue(js)
        await fill(js, name, 1)
        held: list[Delivery] = []
        async with pulling(js, name, held.append, 2):
            await until(lambda: held)
            begin, now = time.monotonic(), time.time()
            await held[0].nak(2.5)
            # A consumer's state goes to the disk a moment later, its times in whole seconds.
            (state,) = server.directory.glob(f"store/**/{name}/obs/all/o.dat")
            await until(lambda: state.stat().st_mtime > now)
            await restart_killed(server)
            await until(lambda: len(held) == 2)
            assert 1.4 <= time.monotonic() - begin < 6


async def test_a_handler_that_raises(js: JetStream, caplog: pytest.LogCaptureFixture) -> None:
    name = await queue(js)
    await fill(js, name, 1)
    held: list[Delivery] = []

    def handler(message: Delivery) -> None:
        if message.info.num_delivered == 1:
            raise ValueError("a bug")
        held.append(message)

    async with pulling(js, name, handler, 1) as intake:
        await until(lambda: held)
        assert intake.free == 0
    assert "a bug" in caplog.text


async def test_the_end_gives_back_what_was_not_taken(js: JetStream) -> None:
    name = await queue(js)
    held: list[Delivery] = []
    async with pulling(js, name, held.append, 50):
        await fill(js, name, 20)
        await until(lambda: len(held) == 20)
    assert (await consumer_state(js, name, "all")).unacknowledged == 20
    await fill(js, name, 5, 20)
    async with pulling(js, name, held.append, 5):  # nothing went to the puller that ended
        await until(lambda: len(held) == 25)


async def test_pulling_goes_on_after_kills_of_the_server(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await queue(js, ack_wait=1.0)
        settled: Counter[int] = Counter()
        forgotten: list[int] = []

        async def work(message: Delivery) -> None:
            await asyncio.sleep(0.001)
            try:
                await message.ack_sync()
                settled[int(message.data)] += 1
            except DeliveryForgottenError:
                forgotten.append(int(message.data))
            intake.add_slots()

        tasks: set[asyncio.Task[None]] = set()
        await fill(js, name, 2000)
        async with pulling(js, name, lambda m: tasks.add(asyncio.create_task(work(m))), 8) as intake:
            for wanted in (300, 900):
                await until(lambda wanted=wanted: len(settled) >= wanted)  # type: ignore[misc]
                await restart_killed(server)
            await until_settled(js, name, 20)
        await asyncio.gather(*tasks)
        # One that was both acknowledged and forgotten does not come again.
        assert set(settled) | set(forgotten) == set(range(2000))
        assert len(settled) > 1900


async def test_a_delivery_that_a_crash_undid(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await queue(js)
        await fill(js, name, 200)
        held: list[Delivery] = []
        async with pulling(js, name, held.append, 200) as intake:
            await until(lambda: len(held) == 200)
            await restart_killed(server)
            state = (await js.api(f"CONSUMER.INFO.{name}.all"))["delivered"]["stream_seq"]
            for message in held:
                if message.info.stream_seq > state:
                    with pytest.raises(DeliveryForgottenError, match="comes again"):
                        await asyncio.wait_for(message.ack_sync(), 3)
                    break
            # Those come again, as if for the first time; the others once ack_wait is over.
            intake.add_slots(200)
            await until(lambda: len(held) == 400 - state)
            assert {m.info.num_delivered for m in held[200:]} <= {1}
