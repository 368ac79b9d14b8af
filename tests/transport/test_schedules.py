"""Messages that a stream publishes later: what arrives, how they are replaced, removed and guarded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from genro_nats.errors import SequenceConflictError, ServerTooOldError, StreamError
from genro_nats.message import new_id
from genro_nats.server import EmbeddedServer
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.direct import get_last, scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.schedules import (
    REMOVAL,
    Schedule,
    at_headers,
    cron_headers,
    every_headers,
    fired_by,
    parse,
    require_delays,
    require_recurring,
)
from genro_nats.transport.streams import ConsumerSpec, StreamSpec, ensure_consumer, ensure_stream
from tests.transport.cluster import Cluster, joined
from tests.transport.streaming import connected, pulling, restart_killed, until

pytestmark = pytest.mark.anyio


async def timed(js: JetStream, replicas: int = 1) -> str:
    """A work queue with schedules on ``name.later.>``, whose consumer hears ``name.now.>``."""
    name = f"t{new_id().hex()}"
    spec = StreamSpec(
        name,
        (f"{name}.>",),
        retention="workqueue",
        replicas=replicas,
        allow_direct=True,
        allow_msg_ttl=True,
        allow_msg_schedules=True,
    )
    await js.insist(lambda: ensure_stream(js, spec), 15)
    await ensure_consumer(js, name, ConsumerSpec("all", (f"{name}.now.>",)))
    return name


async def subjects(js: JetStream, name: str) -> list[str]:
    return [m.subject.removeprefix(f"{name}.") for m in await scan(js, name, f"{name}.>", limit=100)]


async def test_what_arrives_and_when(js: JetStream) -> None:
    name = await timed(js)
    due = time.time() + 0.4
    held: list[Delivery] = []
    headers = {"Own": "kept", **at_headers(due, f"{name}.now.a")}
    async with pulling(js, name, held.append, 5):
        await Publisher(js, name).publish(
            f"{name}.later.a", b"\0\xff", headers, msg_id="m", expected_last_subject_sequence=0
        )
        await until(lambda: held)
    (message,) = held
    assert (message.subject, message.data) == (f"{name}.now.a", b"\0\xff")
    # Gone: the schedule's own, the message's id and what was expected of the stream.
    assert dict(message.headers) == {
        "Own": "kept",
        "Nats-Scheduler": f"{name}.later.a",
        "Nats-Schedule-Next": "purge",
    }
    assert fired_by(message.headers) == f"{name}.later.a"
    assert parse(message.headers) is None
    assert due <= message.info.stored_at < due + 1
    assert await subjects(js, name) == ["now.a"]


async def test_late_ones_come_after_a_kill(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await timed(js)
        held: list[Delivery] = []
        async with pulling(js, name, held.append, 5):
            await Publisher(js, name).publish(
                f"{name}.later.a", b"", at_headers(time.time() + 0.05, f"{name}.now.a")
            )
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.1)  # it is due while there is no server
            await asyncio.to_thread(server.restart)
            await until(lambda: held)


async def test_again_and_again(js: JetStream) -> None:
    name = await timed(js)
    held: list[Delivery] = []
    async with pulling(js, name, held.append, 9):
        await Publisher(js, name).publish(f"{name}.later.a", b"x", every_headers(1, f"{name}.now.a"))
        await until(lambda: len(held) == 2)
    assert {m.data for m in held} == {b"x"}
    assert 0.7 < held[1].info.stored_at - held[0].info.stored_at < 1.3
    assert "later.a" in await subjects(js, name)


async def test_publishing_again_replaces_it(js: JetStream) -> None:
    name = await timed(js)
    held: list[Delivery] = []
    async with pulling(js, name, held.append, 9):
        for data, delay in ((b"old", 0.2), (b"new", 0.5)):
            headers = at_headers(time.time() + delay, f"{name}.now.a")
            await Publisher(js, name).publish(f"{name}.later.a", data, headers)
        assert await subjects(js, name) == ["later.a"]
        await until(lambda: held)
        assert await subjects(js, name) == ["now.a"]
    assert [m.data for m in held] == [b"new"]


async def test_removal(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await timed(js)
        publisher = Publisher(js, name)
        ack = await publisher.publish(f"{name}.later.a", b"", every_headers(1, f"{name}.now.a"))
        await publisher.publish(
            f"{name}.later.a", b"", REMOVAL, ttl=1, expected_last_subject_sequence=ack.seq
        )
        assert await subjects(js, name) == ["later.a"]  # the removal itself, for a second
        while await subjects(js, name):
            await asyncio.sleep(0.05)
        await restart_killed(server)
        assert await subjects(js, name) == []


async def test_a_plain_message_leaves_the_old_one_behind(js: JetStream) -> None:
    """Why ``REMOVAL`` is needed: the schedule no longer fires, but it is in the stream and blocks its key."""
    name = await timed(js)
    publisher = Publisher(js, name)
    await publisher.publish(f"{name}.later.a", b"", every_headers(3600, f"{name}.now.a"))
    await publisher.publish(f"{name}.later.a", b"", ttl=1)
    assert await subjects(js, name) == ["later.a", "later.a"]


async def test_a_removal_that_comes_too_late(js: JetStream) -> None:
    name = await timed(js)
    publisher = Publisher(js, name)
    ack = await publisher.publish(f"{name}.later.a", b"", at_headers(time.time(), f"{name}.now.a"))
    while await subjects(js, name) != ["now.a"]:
        await asyncio.sleep(0.01)
    with pytest.raises(SequenceConflictError):
        await publisher.publish(
            f"{name}.later.a", b"", REMOVAL, ttl=1, expected_last_subject_sequence=ack.seq
        )


class Guard:
    """One key; tokens after the stream: phase, level, key, id."""

    def __init__(self, js: JetStream, name: str, key: str) -> None:
        self.name, self.publisher, self.key = name, Publisher(js, name), key

    async def enter(self, phase: str, level: str, headers: Mapping[str, str] | None = None) -> bool:
        """Was it let in, there being none with this key?"""
        ident = new_id().hex()
        if phase == "later":
            headers = at_headers(time.time() + 0.3, f"{self.name}.now.{level}.{self.key}.{ident}")
        try:
            await self.publisher.publish(
                f"{self.name}.{phase}.{level}.{self.key}.{ident}",
                b"",
                headers,
                expected_last_subject_sequence=0,
                expected_subject=f"{self.name}.*.*.{self.key}.*",
            )
        except SequenceConflictError:
            return False
        return True


async def guarded(js: JetStream, name: str) -> None:
    """A key is taken from its scheduling until its acknowledgement, at every instant."""
    guards = [Guard(js, name, f"k{n}") for n in range(10)]
    other = Guard(js, name, "other")
    held: list[Delivery] = []
    assert all(await asyncio.gather(*(guard.enter("later", "low") for guard in guards)))
    # Tried all the while, over the moment of firing too.
    tries = 0
    while not all(s.startswith("now.") for s in await subjects(js, name)):
        assert not any(await asyncio.gather(*(guard.enter("now", "high") for guard in guards)))
        assert not any(await asyncio.gather(*(guard.enter("later", "normal") for guard in guards)))
        tries += 20
    assert tries >= 40
    assert not any([await guard.enter("now", "low") for guard in guards])  # queued
    assert await other.enter("now", "low")
    async with pulling(js, name, held.append, 20):
        await until(lambda: len(held) == 11)
        assert not any([await guard.enter("now", "high") for guard in guards])  # running
        await asyncio.gather(*(m.ack_sync() for m in held))
    assert await subjects(js, name) == []
    assert all([await guard.enter("later", "high") for guard in guards])


async def test_a_key_is_taken_from_scheduling_to_acknowledgement(js: JetStream) -> None:
    await guarded(js, await timed(js))


async def test_a_key_is_taken_with_three_replicas(cluster: Cluster) -> None:
    async with joined(cluster) as js:
        await guarded(js, await timed(js, 3))


async def test_it_is_either_scheduled_or_published(js: JetStream) -> None:
    name = await timed(js)
    seen: set[tuple[str, ...]] = set()

    async def look(n: int) -> None:
        headers = at_headers(time.time() + 0.02, f"{name}.now.{n}")
        await Publisher(js, name).publish(f"{name}.later.{n}", b"", headers)
        found: tuple[str, ...] = ()
        while found != ("now",):
            found = tuple(m.subject.split(".")[1] for m in await scan(js, name, f"{name}.*.{n}", limit=9))
            seen.add(found)

    await asyncio.gather(*map(look, range(20)))
    assert seen == {("later",), ("now",)}


@pytest.mark.parametrize(
    ("cron", "sent"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/5 8-18 1,15 jan-mar mon", "0 */5 8-18 1,15 jan-mar mon"),
        ("0 3 * * 7", "0 0 3 * * 0"),
        ("0 3 * * 5-7", "0 0 3 * * 5,6,0"),
        ("0 3 * * 1-7/2,7", "0 0 3 * * 1,3,5,0,0"),
        ("0 3 * * fri-sun", "0 0 3 * * 5,6,0"),
        ("0 3 * * 0-7", "0 0 3 * * 0-6"),
        ("0 3 * * sun-tue", "0 0 3 * * sun-tue"),
        ("0 3 * * 1-5,*/2", "0 0 3 * * 1-5,*/2"),
    ],
)
async def test_cron_as_servers_take_it(js: JetStream, cron: str, sent: str) -> None:
    name = await timed(js)
    headers = cron_headers(cron, "Europe/Rome", f"{name}.now.a")
    assert headers["Nats-Schedule"] == sent
    await Publisher(js, name).publish(f"{name}.later.a", b"", headers)
    stored = await get_last(js, name, f"{name}.later.a")
    assert stored
    wanted = Schedule(f"{name}.now.a", cron=sent[2:], timezone="Europe/Rome")
    assert parse(stored.headers) == wanted


@pytest.mark.parametrize(("cron", "zone"), [("0 3 30 2 *", ""), ("0 3 * * *", "Mars/Olympus")])
async def test_what_servers_refuse(js: JetStream, cron: str, zone: str) -> None:
    name = await timed(js)
    with pytest.raises(StreamError, match="invalid"):
        await Publisher(js, name).publish(f"{name}.later.a", b"", cron_headers(cron, zone, f"{name}.now.a"))


def test_reading_them_back() -> None:
    assert parse({}) is None
    assert parse(at_headers(1795236625.236, "t")) == Schedule("t", due=1795236625.236)
    assert parse(every_headers(1.5, "t")) == Schedule("t", every=1.5)
    assert parse(cron_headers("0 3 * * *", "", "t")) == Schedule("t", cron="0 3 * * *")
    by_hand = {"Nats-Schedule": "@every 1h2m3.5s", "Nats-Schedule-Target": "t"}
    assert parse(by_hand) == Schedule("t", every=3723.5)
    for text in ("@every soon", "@every 5", "@at noon"):
        with pytest.raises(ValueError, match=text.split()[1]):
            parse({"Nats-Schedule": text})


async def test_servers_that_are_too_old(js: JetStream) -> None:
    js.connection.server_version = (2, 12, 3)
    require_delays(js)
    with pytest.raises(ServerTooOldError, match=r"recurring message needs nats-server 2\.14"):
        require_recurring(js)
    js.connection.server_version = (2, 11, 3)
    with pytest.raises(ServerTooOldError, match=r"delayed message needs nats-server 2\.12"):
        require_delays(js)
