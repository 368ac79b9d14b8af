"""The server's time, whatever the clock of this machine says."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import AsyncIterator

import pytest

from genro_nats.errors import StreamError
from genro_nats.server import EmbeddedServer
from genro_nats.transport import clock as clock_module
from genro_nats.transport.clock import ServerClock
from genro_nats.transport.direct import get_last
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.times import from_rfc3339
from tests.transport.streaming import connected, restart_killed, store, until

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def running(js: JetStream) -> AsyncIterator[tuple[ServerClock, str]]:
    name = await store(js)
    clock = ServerClock(js, name)
    await clock.start()
    try:
        yield clock, name
    finally:
        await clock.aclose()


async def stored_at(js: JetStream, name: str) -> float:
    """When the server stored a message, by its own clock."""
    await Publisher(js, name).publish(f"{name}.now")
    stored = await get_last(js, name, f"{name}.now")
    assert stored
    return from_rfc3339(stored.time)


async def test_it_is_what_the_server_stamps(js: JetStream) -> None:
    async with running(js) as (clock, name):
        assert clock.uncertainty < 0.1
        for _ in range(5):
            begin = clock.now()
            stamp = await stored_at(js, name)
            assert begin - clock.uncertainty <= stamp <= clock.now() + clock.uncertainty


async def test_a_wall_clock_that_is_wrong(js: JetStream, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Wrong:
            raise AssertionError("the wall clock was looked at")

    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 3600)
    monkeypatch.setattr(time, "time_ns", lambda: int((wall() + 3600) * 1e9))
    monkeypatch.setattr(datetime, "datetime", Wrong)
    assert time.time() - wall() > 3599
    async with running(js) as (clock, name):
        assert abs(clock.now() - await stored_at(js, name)) < 0.5
        assert abs(clock.now() - wall()) < 0.5


async def test_it_is_asked_again_when_the_server_is_back(
    server: EmbeddedServer,
) -> None:
    async with connected(server) as js, running(js) as (clock, _):
        right = clock.now() - time.monotonic()
        clock._offset = right + 100  # as after this machine slept
        await restart_killed(server)
        await until(lambda: abs(clock.now() - time.monotonic() - right) < 0.5)


async def test_it_is_asked_again_after_a_while(js: JetStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "_EVERY", 0.05)
    async with running(js) as (clock, _):
        for _ in range(2):
            clock._offset = 0.0
            await until(lambda: abs(clock.now() - time.time()) < 10)


async def test_a_server_that_does_not_stamp_its_answers(
    js: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ServerClock._ask

    async def without(self: ServerClock, subject: str, *path: str) -> tuple[float, float] | None:
        return None if path == ("ts",) else await ask(self, subject, *path)

    monkeypatch.setattr(ServerClock, "_ask", without)
    async with running(js) as (clock, name):
        assert abs(clock.now() - await stored_at(js, name)) < 0.5


async def test_no_time_yet_and_no_stream(js: JetStream) -> None:
    clock = ServerClock(js, "none-such")
    with pytest.raises(RuntimeError, match="start"):
        clock.now()
    with pytest.raises(StreamError, match="not found"):
        await clock.start()
    await clock.aclose()
