"""The connection itself: what is subscribed at any moment is heard, and headers count."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psutil
import pytest
from nats.errors import StaleConnectionError

from genro_nats.errors import ConnectionLostError, PayloadTooLargeError, StreamUnavailableError
from genro_nats.server import EmbeddedServer
from genro_nats.transport.client import close_client
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.nats import Message
from genro_nats.transport.outbox import Outbox
from tests.transport.streaming import connected, frozen, restart_killed, until

pytestmark = pytest.mark.anyio


async def test_what_is_subscribed_while_it_comes_back_is_heard(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        connection = js.connection
        heard: Counter[str] = Counter()
        back = asyncio.create_task(restart_killed(server))
        await until(lambda: not connection.connected)
        subjects: list[str] = []
        while not connection.connected:
            subjects.append(f"s.{len(subjects)}")
            await connection.subscribe(subjects[-1], lambda m: heard.update([m.subject]))
            await asyncio.sleep(0 if len(subjects) % 10 else 0.001)
        await back
        for subject in subjects:
            await connection.publish(subject, b"")
        await until(lambda: len(heard) == len(subjects), 5)
        assert set(heard.values()) == {1}


async def test_leaving_a_subject_does_not_deafen_when_it_is_cancelled(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        connection = js.connection
        heard: list[Message] = []
        await connection.subscribe("a", heard.append)
        left = await connection.subscribe("b", heard.append)
        with frozen(server):
            leaving = asyncio.create_task(connection.unsubscribe(left))
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        await connection.publish("b", b"")
        await connection.publish("a", b"")
        await until(lambda: heard, 5)
        assert [message.subject for message in heard] == ["a"]


async def test_what_is_being_sent_when_an_outbox_closes_is_sent(js: JetStream) -> None:
    connection = js.connection
    heard: list[str] = []
    await connection.subscribe("out.*", lambda message: heard.append(message.subject))
    outbox = Outbox(connection)
    begun = asyncio.Event()
    publish = connection.publish

    async def slowly(*args: Any, **more: Any) -> None:
        begun.set()
        await asyncio.sleep(0)
        await publish(*args, **more)

    connection.publish = slowly  # type: ignore[method-assign]
    connection.post = lambda *_, **more: False  # type: ignore[method-assign]  # as where much is unsent
    for n in range(3):
        outbox.post(f"out.{n}", f"out.{n}", b"")
    async with asyncio.timeout(5):
        await begun.wait()
    await outbox.aclose()
    await until(lambda: len(heard) == 3, 5)


async def test_a_client_that_can_not_be_closed_in_time_leaves_no_socket(server: EmbeddedServer) -> None:
    this = psutil.Process()
    before = this.num_fds()
    async with connected(server) as js:
        connection = js.connection
        client = connection._client
        assert client is not None and this.num_fds() > before
        await close_client(client, 0.0)
        await asyncio.sleep(0)
        assert this.num_fds() == before


async def test_headers_both_ways_and_their_size(js: JetStream) -> None:
    got: list[Message] = []
    connection = js.connection
    await connection.subscribe("headers.a", got.append)
    headers = {"X-Name": "ü" * 10}
    await connection.publish("headers.a", b"1", headers=headers)
    assert connection.publish_now("headers.a", b"2", headers=headers)
    room = connection.max_payload - (12 + len("X-Name") + 20 + 4)
    await connection.publish("headers.a", b"x" * room, headers=headers)
    with pytest.raises(PayloadTooLargeError, match="max_payload"):
        await connection.publish("headers.a", b"x" * (room + 1), headers=headers)
    await connection.publish("headers.a", b"3")
    await until(lambda: len(got) == 4)
    assert [dict(m.headers) for m in got] == [headers, headers, headers, {}]
    assert [len(m.data) for m in got] == [1, 1, room, 1]


async def test_open_requests_end_with_the_connection(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        await js.connection.subscribe("silent", lambda m: None)
        asking = asyncio.create_task(js.requester.request("silent", timeout=30))
        series = asyncio.create_task(js.requester.series("silent", timeout=30))
        with pytest.raises(StreamUnavailableError, match=r"within 0\.05 s"):
            await js.requester.request("silent", timeout=0.05)
        await restart_killed(server)
        for request in (asking, series):
            with pytest.raises(ConnectionLostError, match="before the reply"):
                await asyncio.wait_for(request, 2)
        await asyncio.wait_for(js.connection.up.wait(), 5)
        assert (await js.requester.request("nobody.there")).status == "503"
        assert not js.requester._open and not js.requester._series


async def test_a_late_reply_is_for_nobody(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        with frozen(server), pytest.raises(StreamUnavailableError):
            await js.requester.request("$JS.API.INFO", timeout=0.05)
        assert b"account_info" in (await js.requester.request("$JS.API.INFO")).data


async def test_what_is_left_is_forgotten(js: JetStream) -> None:
    connection = js.connection
    client: Any = connection._client
    before = len(client.direct), len(client.reader.heard)
    for n in range(5):
        await connection.unsubscribe(await connection.subscribe(f"left.{n}", lambda m: None))
    assert (len(client.direct), len(client.reader.heard)) == before


async def test_a_server_that_hangs_with_much_unsent_is_left_and_what_comes_later_is_sent(
    server: EmbeddedServer,
) -> None:
    """Nothing waits for what can't leave: not the loss itself, and no outbox that fell behind."""
    async with connected(server) as js:
        connection, heard, lost = js.connection, list[bytes](), list[bool]()
        connection.on_down.append(lambda: lost.append(True))
        outbox = Outbox(connection)
        with frozen(server):
            async with asyncio.timeout(20):
                while len(outbox._behind) < 100:
                    outbox.post("much", "much", b"x" * 100_000)
                    await asyncio.sleep(0)
                client: Any = connection._client
                await client._process_op_err(StaleConnectionError())  # as the pings that nobody answers
                await until(lambda: lost, 5)
        await asyncio.wait_for(connection.up.wait(), 10)
        await connection.subscribe("later", lambda message: heard.append(message.data))
        await connection.flush()
        outbox.post("later", "later", b"heard")
        await until(lambda: heard == [b"heard"], 10)
        await outbox.aclose()


async def test_what_can_not_be_encoded_is_its_sender_s_fault_alone(js: JetStream) -> None:
    heard: list[str] = []
    await js.connection.subscribe("fault.*", lambda message: heard.append(message.subject))
    assert js.connection.post("fault.ä", b"")
    with pytest.raises(UnicodeEncodeError):
        js.connection.post("fault.\ud800", b"")
    assert js.connection.post("fault.b", b"")
    await until(lambda: heard == ["fault.ä", "fault.b"], 5)


async def test_a_server_killed_with_much_still_to_be_sent(server: EmbeddedServer) -> None:
    async with connected(server) as js:
        connection = js.connection
        lost: list[bool] = []
        connection.on_down.append(lambda: lost.append(True))
        with frozen(server):
            while connection.publish_now("much", b"x" * 500_000):
                await asyncio.sleep(0)
            sending = [asyncio.create_task(connection.publish("much", b"x" * 500_000)) for _ in range(8)]
            await asyncio.sleep(0)
            await asyncio.to_thread(server.kill)
            await asyncio.wait(sending, timeout=5)
            await until(lambda: lost, 5)
            await asyncio.to_thread(server.restart)
        await asyncio.wait_for(connection.up.wait(), 5)
        assert (await js.requester.request("$JS.API.INFO")).data
