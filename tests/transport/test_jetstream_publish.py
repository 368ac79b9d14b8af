"""Publishing: every acknowledged message is there, once, whatever happens to the server meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from genro_nats.errors import PayloadTooLargeError, SequenceConflictError, StreamError, StreamUnavailableError
from genro_nats.server import EmbeddedServer
from genro_nats.transport.direct import get_last, multi_last, purge_subject
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from tests.transport.streaming import connected, frozen, queue, restart_killed, store

pytestmark = pytest.mark.anyio


async def stored_ids(js: JetStream, name: str, subjects: list[str]) -> dict[str, bytes]:
    return {subject: m.data for subject, m in (await multi_last(js, name, subjects)).items()}


async def messages(js: JetStream, name: str) -> int:
    count: int = (await js.api(f"STREAM.INFO.{name}"))["state"]["messages"]
    return count


async def test_stored_with_headers(js: JetStream) -> None:
    name = await store(js)
    ack = await Publisher(js, name).publish(f"{name}.a", b"data", {"X-Kind": "é"}, msg_id="one")
    assert ack == PubAck(name, 1, False)
    stored = await get_last(js, name, f"{name}.a")
    assert stored is not None
    assert (stored.subject, stored.seq, stored.data) == (f"{name}.a", 1, b"data")
    assert (stored.headers["X-Kind"], stored.headers["Nats-Msg-Id"]) == ("é", "one")


async def test_the_same_id_is_stored_once(js: JetStream) -> None:
    name = await queue(js)
    publisher = Publisher(js, name)
    first = await publisher.publish(f"{name}.a", msg_id="one")
    again = await publisher.publish(f"{name}.a", msg_id="one")
    assert (again.seq, again.duplicate) == (first.seq, True)
    assert await messages(js, name) == 1


async def test_fifty_race_for_one_key(js: JetStream) -> None:
    name = await queue(js)

    async def claim(number: int) -> int | None:
        try:
            await Publisher(js, name).publish(
                f"{name}.{number}.key",
                msg_id=str(number),
                expected_last_subject_sequence=0,
                expected_subject=f"{name}.*.key",
            )
        except SequenceConflictError:
            return None
        return number

    won = [number for number in await asyncio.gather(*map(claim, range(50))) if number is not None]
    assert len(won) == 1
    # Whoever repeats what it had stored learns that it is there; another id is refused.
    assert await claim(won[0]) == won[0]
    assert await claim(99) is None
    assert await messages(js, name) == 1


async def test_what_a_stream_refuses(js: JetStream) -> None:
    name, other = await store(js), await queue(js)
    publisher = Publisher(js, name)
    with pytest.raises(StreamError, match=f"belongs to stream {other}"):
        await publisher.publish(f"{other}.a")
    with pytest.raises(PayloadTooLargeError, match="max_payload"):
        await publisher.publish(f"{name}.a", b"", {"X": "x" * js.connection.max_payload})
    assert (await publisher.publish(f"{name}.a")).seq == 1  # the connection lives on


async def test_a_stream_that_is_not_there(js: JetStream) -> None:
    begin = time.monotonic()
    with pytest.raises(StreamUnavailableError, match="no such stream"):
        await Publisher(js, "none-such", patience=0.3).publish("none-such.a")
    assert 0.3 <= time.monotonic() - begin < 2


async def test_ttl_in_the_servers_time(js: JetStream) -> None:
    name = await store(js)
    await Publisher(js, name).publish(f"{name}.a", b"short", ttl=0.2)
    await Publisher(js, name).publish(f"{name}.b", b"long", ttl=3600)
    assert await get_last(js, name, f"{name}.a") is not None
    begin = time.monotonic()
    while await get_last(js, name, f"{name}.a") is not None:
        assert time.monotonic() - begin < 5
        await asyncio.sleep(0.05)
    assert await get_last(js, name, f"{name}.b") is not None


async def test_many_in_order_each_with_its_own_outcome(js: JetStream) -> None:
    name = await store(js)
    big = b"x" * (js.connection.max_payload + 1)
    wanted = [
        Publication(
            f"{name}.{n}", big if n == 7 else b"", expected_last_subject_sequence=5 if n == 9 else None
        )
        for n in range(1200)
    ]
    outcomes = [outcome async for outcome in Publisher(js, name).publish_many(wanted, in_flight=100)]
    assert isinstance(outcomes[7], PayloadTooLargeError)
    assert isinstance(outcomes[9], SequenceConflictError)
    acks = [outcome for outcome in outcomes if isinstance(outcome, PubAck)]
    assert [ack.seq for ack in acks] == list(range(1, 1199))
    found = await multi_last(js, name, [w.subject for w in wanted])
    assert set(found) == {w.subject for n, w in enumerate(wanted) if n not in (7, 9)}


async def test_publishing_through_kills_of_the_server(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await store(js)
        acked: list[int] = []

        async def lane(first: int) -> None:
            for number in range(first, 400, 8):
                ack = await Publisher(js, name).publish(
                    f"{name}.{number}", str(number).encode(), expected_last_subject_sequence=0
                )
                assert ack.stream == name
                acked.append(number)
                await asyncio.sleep(0.002)

        lanes = [asyncio.create_task(lane(first)) for first in range(8)]
        for wanted in (100, 250):
            while len(acked) < wanted and not all(lane.done() for lane in lanes):
                await asyncio.sleep(0.001)
            await restart_killed(server)
        await asyncio.wait_for(asyncio.gather(*lanes), 20)
        found = await stored_ids(js, name, [f"{name}.{n}" for n in range(400)])
        assert found == {f"{name}.{n}": str(n).encode() for n in range(400)}
        assert await messages(js, name) == 400  # repeated ones were not stored twice


async def test_many_through_a_kill_of_the_server(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await queue(js)
        outcomes = []
        killing: asyncio.Task[None] | None = None
        items = (Publication(f"{name}.{n}", msg_id=str(n)) for n in range(6000))
        async for outcome in Publisher(js, name).publish_many(items):
            outcomes.append(outcome)
            if len(outcomes) == 1000:
                killing = asyncio.create_task(restart_killed(server))
        assert killing is not None
        await asyncio.wait_for(killing, 10)
        assert all(isinstance(outcome, PubAck) for outcome in outcomes)
        assert len({outcome.seq for outcome in outcomes if isinstance(outcome, PubAck)}) == 6000
        assert await messages(js, name) == 6000


async def test_patience_ends(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await store(js)
        with frozen(server):
            begin = time.monotonic()
            with pytest.raises(StreamUnavailableError, match="may have been carried out"):
                await Publisher(js, name, patience=0.1).publish(f"{name}.a")
            assert time.monotonic() - begin < 5
        assert (await Publisher(js, name).publish(f"{name}.b")).stream == name


async def test_a_read_without_an_answer_was_not_carried_out(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        await store(js)
        for where in ("DIRECT.GET.s.a", "STREAM.INFO.s", "CONSUMER.INFO.s.c"):
            with frozen(server), pytest.raises(StreamUnavailableError, match=r"within 0\.1 s\.$") as silent:
                await js.requester.request(f"$JS.API.{where}", timeout=0.1)
            assert silent.value.silent


async def test_reading_many_larger_than_one_answer(js: JetStream) -> None:
    name = await store(js)
    subjects = [f"{name}.{n}" for n in range(80)]
    items = (Publication(subject, b"x" * (1 << 20)) for subject in subjects)
    assert all([isinstance(o, PubAck) async for o in Publisher(js, name).publish_many(items, 16)])
    found = await multi_last(js, name, [*subjects, f"{name}.none"])
    assert sorted(found) == sorted(subjects)
    assert await multi_last(js, name, [f"{name}.none"]) == {}


async def test_purging_one_subject(js: JetStream) -> None:
    name = await store(js)
    for subject in ("a.1", "a.2"):
        await Publisher(js, name).publish(f"{name}.{subject}")
    with pytest.raises(ValueError, match="exact subject"):
        await purge_subject(js, name, f"{name}.a.*")
    assert await purge_subject(js, name, f"{name}.a.1") == 1
    assert await purge_subject(js, name, f"{name}.a.1") == 0
    assert await get_last(js, name, f"{name}.a.1") is None
    last = await get_last(js, name, f"{name}.*.*")
    assert last is not None
    assert last.subject == f"{name}.a.2"
