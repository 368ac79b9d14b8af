"""Payloads pulled over a real server with the default max_payload, and all that may go wrong on the way."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from genro_nats.codec.frame import Frame, FrameKind
from genro_nats.codec.reference import Reference
from genro_nats.config import PoolOptions
from genro_nats.errors import ConnectionLostError, DecodeError, ExecutorError
from genro_nats.transport.reader import Reader
from genro_nats.transport.transfer import credit
from genro_nats.transport.transfer.owner import PULL
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.transport.transfer.turns import AT_ONCE
from tests.transport.brokers import Broker, Brokers
from tests.transport.streaming import until

pytestmark = pytest.mark.anyio

LARGE = 9_000_001  # bytes: some windows and a bit


class Held:
    """Lets so many chunks of an owner go, and no more until ``open``."""

    def __init__(self, transfer: Transfer, chunks: int) -> None:
        self.left = chunks
        self.sent = 0  # bytes
        self.open = asyncio.Event()
        self._send: Callable[..., Any] = transfer.line.send
        transfer.line.send = self._maybe  # type: ignore[method-assign, assignment]

    async def _maybe(self, *args: Any) -> None:
        self.left -= 1
        if self.left < 0:
            await self.open.wait()
        await self._send(*args)
        self.sent += args[-1]


class Side:
    """Makes transfers on one server."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.made: list[Transfer] = []

    async def __call__(self, scheme: str = "nats") -> Transfer:
        transfer = Transfer(PoolOptions(url=(self.broker.url(scheme),)), "test")
        self.made.append(transfer)
        await transfer.open()
        return transfer


@pytest.fixture
async def side(brokers: Brokers) -> AsyncIterator[Side]:
    side = Side(brokers("websocket { port: $WEB, no_tls: true }"))
    yield side
    for transfer in side.made:
        await transfer.aclose()


async def pulled(transfer: Transfer, reference: Reference) -> bytes:
    sink = io.BytesIO()
    await asyncio.wait_for(transfer.pull(reference, sink), 20)
    return sink.getvalue()


@pytest.mark.parametrize("schemes", [("nats", "nats"), ("ws", "nats"), ("nats", "ws")])
async def test_a_payload_of_many_parts(side: Side, schemes: tuple[str, str]) -> None:
    if "ws" in schemes:
        pytest.importorskip("aiohttp")
    owner, puller = [await side(scheme) for scheme in schemes]
    parts = [os.urandom(size) for size in (1, 0, 48, 70_000, credit.CHUNK, LARGE)]
    reference = owner.owner.offer(parts)
    assert reference.size == sum(map(len, parts))
    for _ in range(2):  # it stays until it is dropped
        assert await pulled(puller, reference) == b"".join(parts)
    owner.owner.drop(reference.payload)
    with pytest.raises(ExecutorError, match="does not have the payload"):
        await pulled(puller, reference)


async def test_chunks_bypass_nats_py(side: Side) -> None:
    transfer = await side()
    writer: Any = transfer.line.connection._client._transport._io_writer  # type: ignore[union-attr]
    assert isinstance(writer.transport.get_protocol(), Reader)


@pytest.mark.parametrize("size", [1, credit.CHUNK - 1, credit.CHUNK, credit.CHUNK + 1, credit.WINDOW + 1])
async def test_sizes_at_the_edges(side: Side, size: int) -> None:
    owner, puller = await side(), await side()
    data = os.urandom(size)
    assert await pulled(puller, owner.owner.offer([data])) == data


async def test_more_pulls_than_turns_all_end(side: Side) -> None:
    owner, puller = await side(), await side()
    datas = [os.urandom(1_000_000 + n) for n in range(3 * AT_ONCE)]
    references = [owner.owner.offer([data]) for data in datas]
    assert await asyncio.gather(*(pulled(puller, reference) for reference in references)) == datas


async def test_what_is_kept_for_one_goes_with_it(side: Side) -> None:
    owner, puller = await side(), await side()
    reference = owner.owner.offer([bytes(LARGE)], once=True)
    await pulled(puller, reference)
    await until(lambda: not len(owner.owner))
    reference = owner.owner.offer([bytes(LARGE)], once=True)
    held = Held(owner, 1)
    task = asyncio.create_task(puller.pull(reference, io.BytesIO()))
    await until(lambda: held.left < 0)
    task.cancel()
    await until(lambda: not len(owner.owner))  # cancelled, and the owner was told
    assert not owner.owner._servings


async def test_what_is_wanted_is_kept(side: Side) -> None:
    """A minute after its owner last heard of it, it goes."""
    owner, puller = await side(), await side()
    data = os.urandom(LARGE)
    wanted, other = (owner.owner.offer([data], once=True) for _ in range(2))
    for reference in (wanted, other):
        owner.owner._payloads[reference.payload].moved -= 61
    await puller.open()
    puller.want(wanted)
    await until(lambda: owner.owner.moved_at > 0)
    owner.owner.sweep()
    assert list(owner.owner.payloads) == [wanted.payload]
    assert await pulled(puller, wanted) == data
    await until(lambda: not owner.owner._servings)


async def test_the_owner_sends_no_more_than_was_granted(side: Side) -> None:
    owner = await side()
    reference = owner.owner.offer([bytes(LARGE)])
    sent: list[int] = []

    async def send(subject: str, pull: bytes, offset: int, pieces: object, length: int) -> None:
        sent.append(length)

    owner.line.send = send  # type: ignore[method-assign]
    name = owner.line.pull_subject(bytes(16)).encode()
    owner.owner.pull(Frame(FrameKind.PULL, bytes(16), name, body=PULL.pack(reference.payload, 0, 1_000_000)))
    await until(lambda: sum(sent) == 1_000_000)
    await asyncio.sleep(0.02)
    assert sum(sent) == 1_000_000
    assert not owner.owner.delivered(reference.payload)


async def test_the_owner_dies_while_it_is_pulled(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit, "ABSENT", 0.3)
    monkeypatch.setattr(credit, "ASK_AGAIN", 0.2)
    owner, puller = await side(), await side()
    reference = owner.owner.offer([bytes(LARGE)])
    held = Held(owner, 3)
    task = asyncio.create_task(puller.pull(reference, io.BytesIO()))
    await until(lambda: held.left < 0)
    await owner.aclose()
    with pytest.raises(ConnectionLostError, match=f"stopped after {held.sent:,}: its owner is gone"):
        await asyncio.wait_for(task, 5)
    assert not puller._puller._pulls


async def test_the_owner_falls_silent(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit, "GIVE_UP", 0.6)
    monkeypatch.setattr(credit, "ASK_AGAIN", 0.2)
    owner, puller = await side(), await side()
    reference = owner.owner.offer([bytes(LARGE)])
    held = Held(owner, 3)
    with pytest.raises(ConnectionLostError) as raised:
        await asyncio.wait_for(puller.pull(reference, io.BytesIO()), 5)
    assert f"stopped after {held.sent:,}" in str(raised.value)
    held.open.set()


@pytest.mark.parametrize("which", ["owner", "puller", "both"])
async def test_a_lost_connection_resumes_where_it_was(side: Side, which: str) -> None:
    owner, puller = await side(), await side()
    data = os.urandom(LARGE)
    held = Held(owner, 5)
    written: list[int] = []

    class Sink(io.BytesIO):
        def write(self, piece: Any) -> int:
            written.append(len(piece))
            return super().write(piece)

    sink = Sink()
    task = asyncio.create_task(puller.pull(owner.owner.offer([data]), sink))
    await until(lambda: held.left < 0)
    for name, transfer in (("owner", owner), ("puller", puller)):
        if which in (name, "both"):
            transfer.line.connection._client._transport.close()  # type: ignore[union-attr]
    held.open.set()
    await asyncio.wait_for(task, 8)
    assert sink.getvalue() == data
    assert sum(written) == LARGE  # nothing came twice


async def test_a_server_restart_while_pulling(brokers: Brokers, side: Side) -> None:
    owner, puller = await side(), await side()
    data = os.urandom(LARGE)
    held = Held(owner, 5)
    sink = io.BytesIO()
    task = asyncio.create_task(puller.pull(owner.owner.offer([data]), sink))
    await until(lambda: held.left < 0)
    await asyncio.to_thread(side.broker.kill)
    await until(lambda: not puller.line.online and not owner.line.online)
    held.open.set()
    await asyncio.to_thread(brokers, "", side.broker.port)
    await asyncio.wait_for(task, 10)
    assert sink.getvalue() == data


class Hostile:
    """An owner that answers a pull with chunks of its own choosing."""

    def __init__(self, transfer: Transfer, chunks: list[tuple[int, int]]) -> None:
        self._line = transfer.line
        self._chunks = chunks
        self._tasks: list[asyncio.Task[None]] = []
        transfer.line.on_frame = self._answer

    def _answer(self, frame: Frame) -> None:
        if frame.kind == FrameKind.PULL:
            self._tasks.append(asyncio.create_task(self._send(frame)))

    async def _send(self, frame: Frame) -> None:
        for offset, length in self._chunks:
            await self._line.send(frame.name.decode(), frame.id, offset, [bytes(length)], length)


@pytest.mark.parametrize(
    "chunks",
    [
        [(1, 100)],  # a gap
        [(0, 100), (50, 100)],  # a piece twice
        [(0, 500_000)] * 1,  # ends early, then silence
        [(n * 500_000, 500_000) for n in range(40)],  # endless
        [(0, 0)],
    ],
    ids=["gap", "twice", "truncated", "endless", "empty"],
)
async def test_a_hostile_owner(
    side: Side, chunks: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "GIVE_UP", 0.5)
    owner, puller = await side(), await side()
    Hostile(owner, chunks)
    sink = io.BytesIO()
    with pytest.raises((DecodeError, ConnectionLostError), match=r"A chunk of|stopped after 500,000"):
        await asyncio.wait_for(puller.pull(Reference(bytes(16), 600_000, owner.line.owner_subject), sink), 5)
    assert len(sink.getvalue()) <= 600_000
    assert await pulled(puller, (await side()).owner.offer([b"x" * 50])) == b"x" * 50  # it serves on


async def test_late_chunks_of_an_earlier_question(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit, "ASK_AGAIN", 0.2)
    owner, puller = await side(), await side()
    data = os.urandom(1000)
    asked: list[Frame] = []
    answers: list[asyncio.Task[None]] = []

    async def answer() -> None:
        for frame in asked:  # what the first question asked for comes only now
            await owner.line.send(frame.name.decode(), frame.id, 0, [data[:600]], 600)
        await owner.line.send(asked[1].name.decode(), asked[1].id, 600, [data[600:]], 400)

    def heard(frame: Frame) -> None:
        if frame.kind == FrameKind.PULL:
            asked.append(frame)
            if len(asked) == 2:
                answers.append(asyncio.create_task(answer()))

    owner.line.on_frame = heard
    assert await pulled(puller, Reference(bytes(16), 1000, owner.line.owner_subject)) == data


async def test_a_sink_that_fails(side: Side) -> None:
    owner, puller = await side(), await side()

    class Full:
        def write(self, piece: memoryview) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await asyncio.wait_for(puller.pull(owner.owner.offer([bytes(LARGE)]), Full()), 5)
    data = os.urandom(LARGE)
    assert await pulled(puller, owner.owner.offer([data])) == data


async def test_nobody_is_sent_to_elsewhere(side: Side) -> None:
    owner, puller = await side(), await side()
    with pytest.raises(DecodeError, match="no owner's subject"):
        await puller.pull(Reference(bytes(16), 100, "genro.control.x"), io.BytesIO())
    for name in (b"genro.control.x", b"genro.bulk.x y", b"genro.bulk.a\r\nPING", b""):
        with pytest.raises(DecodeError, match="not laid out"):
            owner.owner.pull(Frame(FrameKind.PULL, bytes(16), name, body=PULL.pack(bytes(16), 0, 1)))


async def test_noise_on_the_line_changes_nothing(side: Side) -> None:
    owner, puller = await side(), await side()
    stranger = (await side()).line.connection
    for subject in (owner.line.owner_subject, puller.line.pull_subject(bytes(16))):
        for size in (0, 1, 47, 48, 49, 5_000, 900_000):
            await stranger.publish(subject, os.urandom(size), "genro.bulk.x.y")
            await stranger.publish(subject, b"GN\x01" + bytes(range(20, 25)) + os.urandom(size))
    await stranger.flush()
    data = os.urandom(LARGE)
    assert await pulled(puller, owner.owner.offer([data])) == data
