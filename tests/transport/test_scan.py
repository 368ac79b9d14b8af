"""Reading a stream by subject from some point on, in pages."""

from __future__ import annotations

import asyncio

import pytest

from genro_nats.errors import ServerTooOldError
from genro_nats.server import EmbeddedServer
from genro_nats.transport.direct import next_message, purge_subject, scan
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.times import from_rfc3339
from tests.transport.streaming import connected, restart_killed, store

pytestmark = pytest.mark.anyio


async def filled(js: JetStream, count: int, size: int = 1) -> str:
    """A new stream with as many subjects ``name.a.N`` and ``name.b.N`` by turns."""
    name = await store(js)
    items = [Publication(f"{name}.{'ab'[n % 2]}.{n}", b"x" * size) for n in range(count)]
    assert all([isinstance(o, PubAck) async for o in Publisher(js, name).publish_many(items)])
    return name


async def test_the_first_in_the_order_of_the_stream(js: JetStream) -> None:
    name = await filled(js, 20)
    found = await scan(js, name, f"{name}.b.*", limit=4)
    assert [m.seq for m in found] == [2, 4, 6, 8]
    assert [m.subject for m in found] == [f"{name}.b.{n}" for n in (1, 3, 5, 7)]
    assert [m.seq for m in await scan(js, name, f"{name}.>", start_seq=18, limit=9)] == [18, 19, 20]
    assert await scan(js, name, f"{name}.c.*", limit=4) == []
    assert await scan(js, name, f"{name}.b.*", start_seq=21, limit=4) == []
    assert await scan(js, name, f"{name}.b.*", limit=0) == []


async def test_more_than_one_page(js: JetStream) -> None:
    name = await filled(js, 9000)
    assert await purge_subject(js, name, f"{name}.a.2000") == 1
    for limit in (1999, 2000, 2001, 4499, 4500, 10_000):
        found = await scan(js, name, f"{name}.a.*", limit=limit)
        assert [m.seq for m in found] == [n for n in range(1, 9001, 2) if n != 2001][:limit]
    (first,) = await scan(js, name, f"{name}.>", limit=1)
    found = await scan(js, name, f"{name}.b.*", start_time=from_rfc3339(first.time) - 1, limit=4500)
    assert [m.seq for m in found] == list(range(2, 9001, 2))


async def test_pages_that_are_full_of_bytes(js: JetStream) -> None:
    name = await filled(js, 80, 900_000)  # 72 MB: more than the server gives in one answer
    found = await scan(js, name, f"{name}.>", limit=100)
    assert [m.seq for m in found] == list(range(1, 81))
    assert {len(m.data) for m in found} == {900_000}


async def test_from_a_time_on(js: JetStream) -> None:
    name = await filled(js, 10)
    await asyncio.sleep(0.002)  # times have milliseconds
    await Publisher(js, name).publish(f"{name}.a.11")
    await Publisher(js, name).publish(f"{name}.b.12")
    (eleventh,) = await scan(js, name, f"{name}.>", start_seq=11, limit=1)
    begin = from_rfc3339(eleventh.time) - 0.001
    assert [m.seq for m in await scan(js, name, f"{name}.>", start_time=begin, limit=9)] == [11, 12]
    found = await next_message(js, name, f"{name}.b.*", start_time=begin)
    assert found and found.seq == 12
    assert await next_message(js, name, f"{name}.>", start_time=begin + 60) is None
    assert await scan(js, name, f"{name}.>", start_time=begin + 60, limit=9) == []


async def test_the_next_message(js: JetStream) -> None:
    name = await filled(js, 6)
    found = await next_message(js, name, f"{name}.b.*")
    assert found and (found.seq, found.subject, found.data) == (2, f"{name}.b.1", b"x")
    found = await next_message(js, name, f"{name}.b.*", start_seq=3)
    assert found and found.seq == 4
    assert await next_message(js, name, f"{name}.b.*", start_seq=7) is None
    assert await next_message(js, name, f"{name}.c.*") is None


async def test_a_page_is_asked_for_again_after_a_kill(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        name = await filled(js, 3000)
        scanning = asyncio.create_task(scan(js, name, f"{name}.>", limit=3000))
        await asyncio.sleep(0)
        await restart_killed(server)
        assert [m.seq for m in await scanning] == list(range(1, 3001))


async def test_a_server_that_is_too_old(js: JetStream) -> None:
    js.connection.server_version = (2, 10, 9)
    with pytest.raises(ServerTooOldError, match=r"2\.11"):
        await scan(js, "any", "any", limit=1)
    with pytest.raises(ServerTooOldError, match=r"2\.11"):
        await next_message(js, "any", "any", start_time=1.0)
