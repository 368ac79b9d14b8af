"""Strict priorities: real servers, several levels, slots, workers, kills, and what goes back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from genro_nats.errors import DeliveryForgottenError
from genro_nats.message import new_id
from genro_nats.server import EmbeddedServer
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.intake import Intake
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.streams import (
    ConsumerSpec,
    StreamSpec,
    consumer_state,
    ensure_consumer,
    ensure_stream,
)
from tests.transport.streaming import connected, frozen, restart_killed, until

pytestmark = pytest.mark.anyio

LEVELS = ("high", "normal", "low")


async def consumers(js: JetStream, name: str, ack_wait: float = 15.0) -> None:
    for level in LEVELS:
        await ensure_consumer(js, name, ConsumerSpec(level, (f"{name}.{level}.>",), ack_wait=ack_wait))


async def levels(js: JetStream, ack_wait: float = 15.0) -> str:
    """A new work queue with a consumer for each level; subjects are ``name.level.number``."""
    name = f"i{new_id().hex()}"
    await ensure_stream(js, StreamSpec(name, (f"{name}.>",), retention="workqueue", allow_direct=True))
    await consumers(js, name, ack_wait)
    return name


async def fill(js: JetStream, name: str, level: str, numbers: Iterable[int]) -> None:
    items = [Publication(f"{name}.{level}.{n}", f"{level}.{n}".encode()) for n in numbers]
    assert all([isinstance(o, PubAck) async for o in Publisher(js, name).publish_many(items)])


async def left(js: JetStream, name: str) -> int:
    found: int = (await js.api(f"STREAM.INFO.{name}"))["state"]["messages"]
    return found


async def until_empty(js: JetStream, name: str, limit: float = 10.0) -> None:
    begin = time.monotonic()
    while await left(js, name):
        assert time.monotonic() - begin < limit, "not all settled"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def taking(
    js: JetStream,
    name: str,
    handler: Callable[[Delivery], object],
    slots: int,
    heartbeat: float = 0.5,
    expires: float = 30.0,
) -> AsyncIterator[Intake]:
    inbox = f"test.intake.{new_id().hex()}."
    intake = Intake(js, name, LEVELS, inbox, handler, heartbeat=heartbeat, expires=expires)
    intake.add_slots(slots) if slots else None
    await intake.start()
    try:
        yield intake
    finally:
        await intake.aclose()


async def idle(js: JetStream, name: str, intake: Intake) -> None:
    """Wait until the server has a waiting ask for each level."""
    await until(lambda: all(lane.known.waiting for lane in intake._lanes))
    for level in LEVELS:
        await consumer_state(js, name, level)  # behind the asks on the same connection


class Work:
    """Handles messages one after the other in each slot; ``order`` is that of their coming."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.order: list[str] = []
        self.seconds = seconds
        self.busy = self.most = 0
        self.intake: Intake | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, message: Delivery) -> None:
        self.order.append(message.data.decode())
        self.busy += 1
        self.most = max(self.most, self.busy)
        task = asyncio.create_task(self._run(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, message: Delivery) -> None:
        await asyncio.sleep(self.seconds)
        with contextlib.suppress(DeliveryForgottenError):
            await message.ack_sync()
        self.busy -= 1
        assert self.intake
        self.intake.add_slots()

    @property
    def levels(self) -> list[str]:
        return [item.split(".")[0] for item in self.order]


async def test_one_slot_strict_order(js: JetStream) -> None:
    name = await levels(js)
    for level in reversed(LEVELS):
        await fill(js, name, level, range(30))
    work = Work()
    async with taking(js, name, work, 1) as work.intake:
        await until_empty(js, name)
        assert work.intake.returned == 0
    assert work.order == [f"{level}.{n}" for level in LEVELS for n in range(30)]
    assert work.most == 1


async def test_a_higher_one_is_next(js: JetStream) -> None:
    name = await levels(js)
    await fill(js, name, "normal", range(200))
    await fill(js, name, "low", range(20))
    work = Work(0.005)
    async with taking(js, name, work, 1) as work.intake:
        for n in range(10):
            await until(lambda n=n: len(work.order) >= 10 * n + 5)  # type: ignore[misc]
            before = len(work.order)
            await fill(js, name, "high", [n])
            await until(lambda n=n: f"high.{n}" in work.order)  # type: ignore[misc]
            # One may have started, and one been asked for, while it was on its way.
            assert work.order.index(f"high.{n}") <= before + 1
        await until_empty(js, name)
        assert work.levels[-20:] == ["low"] * 20
        # It goes back from a full worker, or takes the slot that one of the backlog was asked for;
        # asked for again before the server has handled the NAK, both can happen.
        assert work.intake.returned <= 2 * 10 + 2


async def test_no_more_than_the_slots_and_what_comes_beyond_goes_back(js: JetStream) -> None:
    name = await levels(js)
    held: list[Delivery] = []
    async with taking(js, name, held.append, 3) as intake:
        await idle(js, name, intake)
        await fill(js, name, "normal", range(20))
        await until(lambda: len(held) == 3)
        assert intake.free == 0
        # Three were asked for at each level while all were idle: they come, and go back.
        await fill(js, name, "high", range(20))
        await fill(js, name, "low", range(20))
        await until(lambda: intake.returned >= 6)
        await asyncio.sleep(0.1)  # nothing further is to come
        assert (len(held), intake.returned) == (3, 6)
        states = [await consumer_state(js, name, level) for level in LEVELS]
        # Those that went back count as delivered until they are delivered again.
        assert [(s.unacknowledged, s.waiting) for s in states] == [(3, 0), (3, 0), (3, 0)]
        for message in held[:3]:
            await message.ack_sync()
        intake.add_slots(30)
        await until(lambda: len(held) == 33)
        assert [m.data.decode().split(".")[0] for m in held[3:]] == ["high"] * 20 + ["normal"] * 10
        # Those that went back come first again.
        assert sorted(int(m.data.decode().split(".")[1]) for m in held[3:23]) == list(range(20))


async def test_a_lower_one_waits_until_it_is_known_that_there_is_no_higher_one(js: JetStream) -> None:
    name = await levels(js)
    held: list[Delivery] = []
    async with taking(js, name, held.append, 4) as intake:
        await idle(js, name, intake)
        intake._lanes[1].returned()  # as if one had just gone back
        await fill(js, name, "low", [0])
        await until(lambda: held)
        assert intake.returned >= 1


async def test_fewer_slots(js: JetStream) -> None:
    name = await levels(js)
    held: list[Delivery] = []
    async with taking(js, name, held.append, 4) as intake:
        await idle(js, name, intake)
        intake.add_slots(-3)
        assert intake.free == 1
        await fill(js, name, "normal", range(9))
        await until(lambda: intake.returned)
        await asyncio.sleep(0.1)  # nothing further is to come
        assert len(held) == 1
        assert intake.returned <= 3


async def test_what_comes_again_keeps_its_level(js: JetStream) -> None:
    """Neither NAKs with a delay nor expired leases are counted as pending by the server."""
    name = await levels(js, ack_wait=0.5)
    await fill(js, name, "high", range(2))
    await fill(js, name, "low", range(400))
    order: list[str] = []

    async def run(message: Delivery) -> None:
        order.append(message.data.decode())
        if message.data == b"high.0" and message.info.num_delivered == 1:
            await message.nak(0.3)
        elif message.data != b"high.1" or message.info.num_delivered > 1:
            await asyncio.sleep(0.005)
            await message.ack_sync()
        intake.add_slots()

    tasks: set[asyncio.Task[None]] = set()
    async with taking(js, name, lambda m: tasks.add(asyncio.create_task(run(m))), 1) as intake:
        await until_empty(js, name)
    assert Counter(order) == {"high.0": 2, "high.1": 2, **{f"low.{n}": 1 for n in range(400)}}
    assert order.index("high.0", 2) < 150
    assert order.index("high.1", 2) < 250


async def test_two_workers_share(js: JetStream, shared: EmbeddedServer) -> None:
    name = await levels(js)
    for level in reversed(LEVELS):
        await fill(js, name, level, range(200))
    one, two = Work(0.001), Work(0.001)
    order: list[str] = []
    one.order = two.order = order
    async with (
        connected(shared) as other,
        taking(js, name, one, 4) as one.intake,
        taking(other, name, two, 4) as two.intake,
    ):
        await until_empty(js, name)
        returned = one.intake.returned + two.intake.returned
    assert len(order) == len(set(order)) == 600
    assert max(one.most, two.most) <= 4
    # Eight are on their way at once, to two clients: they may pass each other there, not more.
    places = {level: [n for n, item in enumerate(order) if item.startswith(level)] for level in LEVELS}
    assert max(places["high"]) - min(places["normal"]) <= 8
    assert max(places["normal"]) - min(places["low"]) <= 8
    assert returned <= 16


async def test_bounded_returns_under_a_mixed_load(js: JetStream) -> None:
    name = await levels(js)
    work = Work(0.002)
    dice = random.Random(7)
    async with taking(js, name, work, 4) as work.intake:
        for n in range(60):
            for level in LEVELS:
                await fill(js, name, level, range(n * 10, n * 10 + dice.randrange(8)))
            await asyncio.sleep(0.01)
        await until_empty(js, name)
        print(f"{work.intake.returned} returned of {len(work.order)}")
        # Each slot that comes free tops up each level that waits by one at most.
        assert work.intake.returned <= (len(LEVELS) - 1) * (len(work.order) + 4)
        assert work.intake.returned <= len(work.order)
    assert len(work.order) == len(set(work.order))
    assert work.most <= 4


async def test_going_on_after_kills_of_the_server(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await levels(js, ack_wait=1.0)
        for level in LEVELS:
            await fill(js, name, level, range(500))
        work = Work(0.001)
        async with taking(js, name, work, 8) as work.intake:
            for wanted in (200, 700):
                await until(lambda wanted=wanted: len(set(work.order)) >= wanted)  # type: ignore[misc]
                await restart_killed(server)
            await until_empty(js, name, 20)
            await until(lambda: work.intake and work.intake.free == 8)
        assert len(set(work.order)) == 1500


async def test_idle_then_a_kill(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await levels(js)
        held: list[Delivery] = []
        async with taking(js, name, held.append, 3):
            await restart_killed(server)
            for level in reversed(LEVELS):
                await fill(js, name, level, [0])
            assert await until(lambda: len(held) == 3) < 1


async def test_a_server_that_froze(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await levels(js)
        held: list[Delivery] = []
        async with taking(js, name, held.append, 3, heartbeat=0.2) as intake:
            await idle(js, name, intake)
            with frozen(server):
                await until(lambda: intake.silences >= 3)
            await fill(js, name, "normal", range(9))
            await until(lambda: len(held) == 3)
            await asyncio.gather(*(m.ack_sync() for m in held))
            intake.add_slots(6)
            await until(lambda: len(held) == 9)
            assert sorted(m.data for m in held) == [f"normal.{n}".encode() for n in range(9)]


async def test_asks_that_expire_are_made_again(js: JetStream) -> None:
    name = await levels(js)
    held: list[Delivery] = []
    async with taking(js, name, held.append, 4, heartbeat=0.1, expires=0.3) as intake:
        await asyncio.sleep(0.7)  # two of them
        await fill(js, name, "low", range(2))
        await fill(js, name, "high", range(2))
        await until(lambda: len(held) == 4)
        assert intake.silences == 0


async def test_a_consumer_that_was_deleted_is_restored(js: JetStream) -> None:
    name = await levels(js)
    held: list[Delivery] = []
    inbox = f"test.intake.{new_id().hex()}."
    intake = Intake(js, name, LEVELS, inbox, held.append, restore=lambda: consumers(js, name))
    intake.add_slots(2)
    await intake.start()
    await idle(js, name, intake)
    await js.api(f"CONSUMER.DELETE.{name}.high")
    await fill(js, name, "high", [1])
    await fill(js, name, "low", [1])
    await until(lambda: len(held) == 2)
    await intake.aclose()
    await intake.aclose()


async def test_a_handler_that_raises(js: JetStream, caplog: pytest.LogCaptureFixture) -> None:
    name = await levels(js)
    await fill(js, name, "low", [1])
    held: list[Delivery] = []

    def handler(message: Delivery) -> None:
        if message.info.num_delivered == 1:
            raise ValueError("a bug")
        held.append(message)

    async with taking(js, name, handler, 1) as intake:
        await until(lambda: held)
        assert intake.free == 0
    assert "a bug" in caplog.text
