"""Streams and consumers: created once by many, never silently used with other settings."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from genro_nats.errors import ServerTooOldError, StreamError, StreamMismatchError
from genro_nats.message import new_id
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.streams import (
    ConsumerSpec,
    ConsumerState,
    StreamSpec,
    consumer_state,
    ensure_consumer,
    ensure_stream,
)

pytestmark = pytest.mark.anyio


def full_spec() -> StreamSpec:
    name = f"t{new_id().hex()}"
    return StreamSpec(
        name,
        (f"{name}.b.>", f"{name}.a"),
        retention="workqueue",
        storage="memory",
        max_age=60,
        max_messages=1000,
        max_messages_per_subject=2,
        allow_direct=True,
        allow_msg_ttl=True,
        allow_msg_schedules=True,
    )


async def test_many_create_the_same(js: JetStream) -> None:
    spec = full_spec()
    await asyncio.gather(*(ensure_stream(js, spec) for _ in range(20)))
    found = (await js.api(f"STREAM.INFO.{spec.name}"))["config"]
    wanted = spec.settings()
    assert sorted(found.pop("subjects")) == sorted(wanted.pop("subjects"))
    assert {key: found.get(key) for key in wanted} == wanted
    consumer = ConsumerSpec("c", (f"{spec.name}.a",), ack_wait=3)
    await asyncio.gather(*(ensure_consumer(js, spec.name, consumer) for _ in range(20)))
    assert await consumer_state(js, spec.name, "c") == ConsumerState(0, 0, 0, 0)


async def test_other_settings_are_shown_from_both_sides(js: JetStream) -> None:
    spec = full_spec()
    await ensure_stream(js, spec)
    with pytest.raises(StreamMismatchError, match=r"wanted max_msgs=7; found max_msgs=1000") as caught:
        await ensure_stream(js, replace(spec, max_messages=7))
    assert caught.value.wanted == {"max_msgs": 7}
    assert caught.value.found == {"max_msgs": 1000}
    assert not caught.value.retryable
    await ensure_consumer(js, spec.name, ConsumerSpec("c", ack_wait=3))
    with pytest.raises(StreamMismatchError, match=r"wanted ack_wait=4000000000; found ack_wait=3000000000"):
        await ensure_consumer(js, spec.name, ConsumerSpec("c", ack_wait=4))


async def test_settings_that_are_not_ours_are_left_alone(js: JetStream) -> None:
    spec = full_spec()
    await ensure_stream(js, spec)
    settings = {**(await js.api(f"STREAM.INFO.{spec.name}"))["config"], "description": "by hand"}
    await js.api(f"STREAM.UPDATE.{spec.name}", settings)
    await ensure_stream(js, spec)
    assert (await js.api(f"STREAM.INFO.{spec.name}"))["config"]["description"] == "by hand"


async def test_a_subject_of_another_stream(js: JetStream) -> None:
    spec = full_spec()
    await ensure_stream(js, spec)
    with pytest.raises(StreamError, match="overlap"):
        await ensure_stream(js, replace(spec, name=spec.name + "x"))


async def test_a_consumer_needs_its_stream(js: JetStream) -> None:
    with pytest.raises(StreamError, match="stream not found"):
        await ensure_consumer(js, "none-such", ConsumerSpec("c"))
    with pytest.raises(StreamError, match="not found"):
        await consumer_state(js, "none-such", "c")


async def test_a_server_that_is_too_old(js: JetStream) -> None:
    assert js.connection.server_version >= (2, 12, 0)
    js.connection.server_version = (2, 11, 4)
    with pytest.raises(
        ServerTooOldError, match=r"schedules needs nats-server 2\.12 or newer; .* is 2\.11\.4"
    ) as caught:
        await ensure_stream(js, full_spec())
    assert caught.value.needed == (2, 12)
