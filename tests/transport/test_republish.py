"""A stream that tells what it stored: once each, afterwards, and nothing that it refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from genro_nats.errors import SequenceConflictError, StreamMismatchError
from genro_nats.message import new_id
from genro_nats.transport.direct import get_last
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Message
from genro_nats.transport.publisher import PubAck, Publication, Publisher
from genro_nats.transport.streams import StreamSpec, ensure_stream
from tests.transport.cluster import Cluster, joined
from tests.transport.streaming import until

pytestmark = pytest.mark.anyio

COUNT = 200


def telling(replicas: int = 1) -> StreamSpec:
    name = f"r{new_id().hex()}"
    return StreamSpec(
        name,
        (f"{name}.*.*",),
        max_messages_per_subject=1,
        replicas=replicas,
        allow_direct=True,
        allow_msg_ttl=True,
        republish=(f"{name}.*.*", f"told.{name}.{{{{wildcard(2)}}}}.{{{{wildcard(1)}}}}"),
    )


async def told(js: JetStream, ear: JetStream, name: str) -> None:
    """What two callers racing for each of ``COUNT`` subjects make a subscriber hear."""
    heard: list[Message] = []
    overheard: list[Message] = []
    await ear.connection.subscribe(f"told.{name}.>", heard.append)
    await ear.connection.subscribe(f"{name}.>", overheard.append)
    await ear.connection.flush()
    items = [
        Publication(
            f"{name}.{n}.x",
            str(writer).encode(),
            {"Own": str(n)},
            expected_last_subject_sequence=0,
            ttl=60,
        )
        for n in range(COUNT)
        for writer in range(2)
    ]
    outcomes = [outcome async for outcome in Publisher(js, name).publish_many(items, 32)]
    assert [isinstance(outcome, PubAck) for outcome in outcomes] == [True, False] * COUNT
    assert all(isinstance(outcome, SequenceConflictError) for outcome in outcomes[1::2])
    # The last of all, so whatever is told at all has been told then.
    await Publisher(js, name).publish(f"{name}.last.x", b"")
    await until(lambda: heard and heard[-1].subject.endswith(".last") and len(overheard) == 2 * COUNT + 1)
    # Subscribers of the stream's own subject hear what it refused as well: they can't tell which.
    assert len(overheard) == 2 * COUNT + 1
    *heard, _ = heard
    assert [m.subject for m in heard] == [f"told.{name}.x.{n}" for n in range(COUNT)]
    assert {m.data for m in heard} == {b"0"}
    acks = [outcome.seq for outcome in outcomes if isinstance(outcome, PubAck)]
    assert [int(m.headers["Nats-Sequence"]) for m in heard] == acks
    assert [m.headers["Own"] for m in heard] == [str(n) for n in range(COUNT)]
    headers = heard[0].headers
    assert {key: headers[key] for key in ("Nats-Subject", "Nats-Stream", "Nats-Last-Sequence")} == {
        "Nats-Subject": f"{name}.0.x",
        "Nats-Stream": name,
        "Nats-Last-Sequence": "0",
    }


async def test_what_one_server_tells(js: JetStream) -> None:
    spec = telling()
    await ensure_stream(js, spec)
    await told(js, js, spec.name)


async def test_what_three_replicas_tell_on_another_server(cluster: Cluster) -> None:
    async with joined(cluster) as js, joined(cluster) as ear:
        spec = telling(3)
        await js.insist(lambda: ensure_stream(js, spec), 15)
        await told(js, ear, spec.name)


async def test_a_repeated_message_is_told_once(js: JetStream) -> None:
    spec = telling()
    await ensure_stream(js, spec)
    heard: list[Message] = []
    await js.connection.subscribe(f"told.{spec.name}.>", heard.append)
    publisher = Publisher(js, spec.name)
    acks = [await publisher.publish(f"{spec.name}.a.x", msg_id="same") for _ in range(3)]
    assert [ack.duplicate for ack in acks] == [False, True, True]
    await publisher.publish(f"{spec.name}.last.x")
    await until(lambda: heard and heard[-1].subject.endswith(".last"))
    assert len(heard) == 2


async def test_what_is_told_was_stored_before(js: JetStream) -> None:
    spec = telling()
    await ensure_stream(js, spec)
    reads: list[asyncio.Task[bytes | None]] = []

    async def read(message: Message) -> bytes | None:
        stored = await get_last(js, spec.name, message.headers["Nats-Subject"])
        return stored and stored.data

    await js.connection.subscribe(f"told.{spec.name}.>", lambda m: reads.append(asyncio.create_task(read(m))))
    publisher = Publisher(js, spec.name)
    for n in range(50):
        await publisher.publish(f"{spec.name}.{n}.x", str(n).encode())
    await until(lambda: len(reads) == 50)
    assert await asyncio.gather(*reads) == [str(n).encode() for n in range(50)]


async def test_another_destination_is_another_setting(js: JetStream) -> None:
    spec = telling()
    await ensure_stream(js, spec)
    await ensure_stream(js, spec)
    for other in (None, (f"{spec.name}.*.*", "elsewhere")):
        with pytest.raises(StreamMismatchError, match="republish"):
            await ensure_stream(js, replace(spec, republish=other))
