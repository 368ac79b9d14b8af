"""Results by reference that lie: the caller is told by name, at once or when silence lasts, and calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats
import pytest

from genro_nats import (
    CodecError,
    DecodeError,
    ExecutorError,
    NatsExecutor,
    PayloadTooLargeError,
    WorkerLostError,
)
from genro_nats.codec import compression
from genro_nats.codec.frame import HEADER_SIZE, Flag, Frame, FrameKind, decode, encode
from genro_nats.codec.reference import Reference, refer
from genro_nats.transport.transfer import credit
from genro_nats.transport.transfer.owner import PULL
from tests.faults import jobs
from tests.faults.conftest import Fleet

pytestmark = pytest.mark.anyio
SIZE = 600_000
Pieces = list[tuple[int, int]]


class Liar:
    """Answers calls as a worker does, with a reference to itself; what it sends when it is asked, ``lie`` says.

    None: it has nothing. ``outcome(call)``: the frame it announces.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.owner = f"{prefix}.bulk.=.liar.owner"
        self.calls = f"{prefix}.call.faults"
        self.lie: Pieces | None = []
        self.outcome: Callable[[Frame], bytes] = self.announce
        self._payload = b""

    async def start(self) -> None:
        await self.client.subscribe(self.calls, cb=self._called)
        await self.client.subscribe(self.owner, cb=self._asked)
        await self.client.flush()

    def announce(self, call: Frame, size: int = SIZE, owner: str = "") -> bytes:
        self._payload = encode(Frame(FrameKind.REPLY, call.id, body=bytes(SIZE - HEADER_SIZE)))
        start = encode(Frame(FrameKind.REPLY, call.id))
        return refer(start, Reference(bytes(16), size, owner or self.owner))

    async def _called(self, message: Any) -> None:
        call, _ = decode(message.data)
        await self.client.publish(message.reply, self.outcome(call), reply=f"{self.calls}.liar")

    async def _asked(self, message: Any) -> None:
        frame, _ = decode(message.data)
        if frame.kind != FrameKind.PULL:
            return
        assert len(frame.body) == PULL.size
        where = frame.name.decode()
        if self.lie is None:
            await self.client.publish(where, encode(Frame(FrameKind.GONE, frame.id)))
            return
        for offset, length in self.lie:
            piece = self._payload[offset : offset + length].ljust(length, b"x")
            chunk = Frame(FrameKind.CHUNK, frame.id, body=piece, seconds=float(offset))
            await self.client.publish(where, encode(chunk))


@pytest.fixture
async def liar(shared_fleet: Fleet) -> AsyncIterator[Liar]:
    server = shared_fleet.server
    client = await nats.connect(server.url, user=server.user, password=server.password)
    found = Liar(client, shared_fleet.prefix)
    await found.start()
    yield found
    await client.close()


async def fails(pool: NatsExecutor, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await asyncio.wait_for(pool.submit(jobs.pid), 15)
    assert pool.metrics["pending"] == 0


async def goes_on(liar: Liar, fleet: Fleet, pool: NatsExecutor) -> None:
    """The same pool calls a worker that tells the truth."""
    await liar.client.close()
    await fleet.worker(max_workers=1)
    assert await asyncio.wait_for(pool.submit(jobs.give_bytes, 2_000_000), 15) == bytes(2_000_000)


async def test_payloads_that_are_not_what_was_announced(
    shared_fleet: Fleet, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "GIVE_UP", 1.0)
    monkeypatch.setattr(credit, "START", SIZE)  # all is granted at once: the liar hears no grants
    pool = shared_fleet.caller(timeout=20)
    whole = [(at, 100_000) for at in range(0, SIZE, 100_000)]
    lies: list[tuple[Pieces | None, type[Exception], str]] = [
        (None, ExecutorError, "does not have the payload"),
        ([(0, 500_000)], WorkerLostError, "stopped after 500,000"),
        ([(number * 100_001, 100_001) for number in range(300)], DecodeError, "A chunk of"),
        ([(1, 100_000)], DecodeError, "A chunk of"),
        (whole, DecodeError, "unpickled"),
        (whole * 50, DecodeError, "unpickled"),
        ([(0, 0)], DecodeError, "A chunk of"),
    ]
    for lie, error, text in lies:
        liar.lie = lie
        await fails(pool, error, text)
    await goes_on(liar, shared_fleet, pool)


async def test_references_that_lead_nowhere(
    shared_fleet: Fleet, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = shared_fleet.caller(timeout=20, max_payload_size=50 << 20)
    prefix = shared_fleet.prefix
    lies: list[tuple[int, str, type[Exception], str]] = [
        (1 << 62, "", PayloadTooLargeError, "max_payload_size"),
        (47, "", DecodeError, "less than a frame"),
        (SIZE, f"{prefix}.control.faults", DecodeError, "no owner's subject"),
        (SIZE, f"{prefix}.bulk.*.owner", DecodeError, "without a proper reference"),
        (SIZE, "$JS.API.STREAM.PURGE.x", DecodeError, "without a proper reference"),
        (SIZE, f"{prefix}.bulk.=.nobody.owner", WorkerLostError, "gone"),
    ]
    for size, owner, error, text in lies:
        liar.outcome = lambda call, size=size, owner=owner: liar.announce(call, size, owner)  # type: ignore[misc]
        await fails(pool, error, text)
    await goes_on(liar, shared_fleet, pool)


async def test_results_that_grow(shared_fleet: Fleet, liar: Liar) -> None:
    """A few kilobytes that say, or do not say, that they hold a thousand times as much."""
    pool = shared_fleet.caller(timeout=20, max_payload_size=10 << 20)
    for stated in (1 << 62, 11 << 20, 1000):
        liar.outcome = lambda call, stated=stated: _bomb(call, stated)  # type: ignore[misc]
        await fails(pool, CodecError, "max_payload_size|more than the")
    await goes_on(liar, shared_fleet, pool)


def _bomb(call: Frame, stated: int) -> bytes:
    frame = compression.press(Frame(FrameKind.REPLY, call.id, body=bytes(64 << 20)), "zstd")
    assert frame.flags & Flag.COMPRESSED
    body = bytearray(frame.body)
    body[4:12] = stated.to_bytes(8, "big")
    frame.body = bytes(body)
    return encode(frame)
