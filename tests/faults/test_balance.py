"""Calls move between workers: to free children, at most three times, and never twice at once."""

from __future__ import annotations

import asyncio
import pickle
import signal
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import (
    CallTimeoutError,
    ExecutorOverloadError,
    NatsExecutor,
    NoWorkersError,
    ProcessExecutor,
    WorkerLostError,
)
from genro_nats.codec.frame import Flag, Frame, FrameKind, check, decode_all, encode
from genro_nats.executor import nats_engine, nats_silence
from genro_nats.executor.children.choice import LOW
from genro_nats.executor.nats_pending import Pending
from genro_nats.message import new_id
from genro_nats.transport.address import Address
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.subjects import QUEUE_GROUP, pool_subjects
from tests.faults import jobs
from tests.faults.conftest import Fleet, Notes, Worker, alive, until

pytestmark = pytest.mark.anyio
LARGE = 6_000_000


class Peer:
    """What workers say to each other; it may pose as one of them."""

    def __init__(self, fleet: Fleet) -> None:
        options = fleet.caller().options
        self.connection = Connection(Address(options), "a peer")
        self.subjects = pool_subjects(fleet.prefix, "faults")
        self.address = f"{self.subjects.peers}.posing"
        self.heard: list[tuple[str, Frame]] = []
        self.given: list[tuple[Frame, Frame]] = []

    async def start(self, *, posing: bool = True) -> Peer:
        await self.connection.start()
        await self.connection.subscribe(self.subjects.peers, self._hear)
        if posing:
            await self.connection.subscribe(self.subjects.peers + ".>", self._hear)
            await self.connection.subscribe(self.address, self._given)
        await self.connection.flush()
        return self

    def _hear(self, message: Message) -> None:
        self.heard += [(message.reply, frame) for frame in decode_all(message.data)]

    def _given(self, message: Message) -> None:
        cover, *calls = decode_all(message.data)
        if cover.kind == FrameKind.REFUSED:
            self.given += [(cover, call) for call in calls]

    async def say(self, receiver: str, kind: int, count: float) -> None:
        body = struct.pack("!d", 5.0) if kind == FrameKind.WAITING and count > 0 else b""
        data = encode(Frame(kind, seconds=count, body=body))
        await self.connection.publish(receiver, data, self.address)
        await self.connection.flush()

    async def crowded(self) -> str:
        """The address of a worker that says that calls wait there."""
        await self.say(self.subjects.peers, FrameKind.WAITING, 0)

        def found() -> list[str]:
            return [who for who, it in self.heard if it.kind == FrameKind.WAITING and it.seconds > 0]

        await until(found)
        return found()[-1]

    def kinds(self) -> Counter[int]:
        return Counter(frame.kind for _, frame in self.heard)


@pytest.fixture
async def peer(shared_fleet: Fleet) -> AsyncIterator[Peer]:
    found = Peer(shared_fleet)
    yield found
    await found.connection.aclose()


class Gate:
    """A file that jobs wait for."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def open(self) -> None:
        Path(self.path).touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def pending_of(pool: NatsExecutor) -> list[Pending]:
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    return list(engine._pending.values())


async def busy(pool: NatsExecutor, notes: Notes, gate: Gate, count: int = 1) -> list[asyncio.Task[Any]]:
    """Calls that run until the gate opens; returns once they have begun."""
    begun = len(notes.lines())
    calls = [asyncio.create_task(pool.submit(jobs.hold, notes.path, gate.path)) for _ in range(count)]
    await notes.wait(begun + count)
    return calls


async def sent(pool: NatsExecutor, count: int) -> None:
    """Wait until the server has passed on so many calls."""
    await until(lambda: len(pending_of(pool)) == count)
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    await engine._connection.flush()


async def queued(pool: NatsExecutor, notes: Notes, key: str) -> asyncio.Task[Any]:
    """A call that waits at a worker behind another one."""
    call = asyncio.create_task(pool.submit(jobs.work, notes.path, key))
    await sent(pool, 2)
    return call


async def one_busy_worker(
    fleet: Fleet, notes: Notes, gate: Gate
) -> tuple[Worker, NatsExecutor, asyncio.Task[Any]]:
    worker = await fleet.worker(max_workers=1)
    pool = fleet.caller()
    (running,) = await busy(pool, notes, gate)
    return worker, pool, running


async def test_what_waits_moves_to_a_worker_that_comes(shared_fleet: Fleet, notes: Notes, gate: Gate) -> None:
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    keys = [f"{n}" for n in range(40)]
    waiting = [asyncio.create_task(pool.submit(jobs.work, notes.path, key, 0.01)) for key in keys]
    await shared_fleet.worker(max_workers=1)
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == keys
    assert not running.done()
    assert notes.most() == 1
    gate.open()
    await running


async def test_no_call_waits_while_another_worker_has_a_free_child(
    shared_fleet: Fleet, notes: Notes, gate: Gate
) -> None:
    for _ in range(2):
        await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    running = await busy(pool, notes, gate)
    for n in range(30):
        assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, f"{n}"), 5) == f"{n}"
    assert not running[0].done()
    assert notes.most() == 1
    gate.open()
    await running[0]


async def test_two_long_calls_never_share_a_worker(shared_fleet: Fleet, notes: Notes, tmp_path: Path) -> None:
    for _ in range(2):
        await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    for n in range(8):
        gate = Gate(tmp_path / f"gate{n}")
        running = await busy(pool, notes, gate, 2)  # it begins both, or this fails
        gate.open()
        await asyncio.gather(*running)


async def test_behind_a_call_that_was_thought_to_be_short(shared_fleet: Fleet) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    for _ in range(50):
        await pool.submit(jobs.nap, 0)
    long = asyncio.create_task(pool.submit(jobs.nap, 60))
    short = [asyncio.create_task(pool.submit(jobs.nap, 0)) for _ in range(20)]
    await sent(pool, 21)
    await shared_fleet.worker(max_workers=1)
    await asyncio.wait_for(asyncio.gather(*short), 10)
    assert not long.done()
    long.cancel()


async def test_what_is_far_behind_in_a_child_can_be_recalled(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ProcessExecutor("p", max_workers=1, spares=0) as pool:
        await pool.start()
        inner: Any = pool._home.engine._pool  # type: ignore[union-attr]
        monkeypatch.setattr(inner._short, "is_short", lambda key: True)
        calls = [asyncio.create_task(pool.submit(jobs.work, notes.path, "head", 0.5))]
        calls += [asyncio.create_task(pool.submit(jobs.work, notes.path, f"{n}")) for n in range(30)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (child,) = inner.roster.active
        assert inner.surplus == len(inner.queue) + len(child.inflight) - LOW
        assert len(child.inflight) > LOW
        inner.recall()
        assert (len(child.inflight), len(inner.queue)) == (1, 30)
        inner.recall()
        assert inner.surplus == 30
        inner.on_capacity()
        await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert notes.most() == 1


async def test_one_worker_alone_says_nothing(
    shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer
) -> None:
    await peer.start()
    begin = time.monotonic()
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    waiting = []
    for n in range(25):
        waiting.append(asyncio.create_task(pool.submit(jobs.work, notes.path, f"{n}")))
        await asyncio.sleep(0.05)  # in 1.2 s it would have told others several times
    gate.open()
    await asyncio.gather(running, *waiting)
    assert set(peer.kinds()) == {FrameKind.WAITING}
    assert peer.kinds().total() <= 2 + (time.monotonic() - begin) / 2  # signs of life


async def test_at_most_three_hops(shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer) -> None:
    await peer.start()
    _, _pool, running = await one_busy_worker(shared_fleet, notes, gate)
    body = pickle.dumps(((notes.path, "far"), {}), 5)
    frames = [
        Frame(FrameKind.CALL, new_id(), b"tests.faults.jobs:work", body=body, hops=n) for n in (3, 2, 7)
    ]
    for frame in frames:
        reply = f"{shared_fleet.prefix}.reply.stranger.{frame.id.hex()}"
        await peer.connection.publish(peer.subjects.call, encode(frame), reply)
    crowded = await peer.crowded()
    await until(lambda: any(it.kind == FrameKind.WAITING and it.seconds == 3 for _, it in peer.heard))
    await peer.say(crowded, FrameKind.TAKE, 10)
    await until(lambda: peer.given)
    await until(lambda: peer.heard[-1][1].kind == FrameKind.WAITING and peer.heard[-1][1].seconds == 0)
    ((cover, given),) = peer.given
    assert (given.id, given.hops) == (frames[1].id, 3)
    assert (cover.id, cover.name) == (
        given.id,
        f"{shared_fleet.prefix}.reply.stranger.{given.id.hex()}".encode(),
    )
    assert bytes(given.body) == body
    gate.open()
    await running
    await until(lambda: notes.counts()["far"] == 2)  # those that stayed


async def test_an_asker_that_is_gone_gets_nothing(
    shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer
) -> None:
    """Nobody hears its address any more: the calls come back to who had them."""
    await peer.start(posing=False)
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    keys = [f"{n}" for n in range(5)]
    waiting = [asyncio.create_task(pool.submit(jobs.work, notes.path, key)) for key in keys]
    crowded = await peer.crowded()
    told = len(peer.heard)
    await peer.say(crowded, FrameKind.TAKE, 3)
    # What it says after that comes once the calls were handed on; they come back a moment later.
    await until(lambda: any(who == crowded and it.seconds >= 5 for who, it in peer.heard[told:]), 5)
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == keys
    await running
    assert notes.most() == 1


async def test_an_asker_killed_with_calls_in_its_hands(
    shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have begun them: that is told, and they are not run again."""
    monkeypatch.setattr(nats_silence, "SILENCE", 2.0)
    await peer.start()
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    call = asyncio.create_task(pool.submit(jobs.work, notes.path, "x"))
    await peer.say(await peer.crowded(), FrameKind.TAKE, 1)
    await until(lambda: peer.given)
    gate.open()
    await running
    with pytest.raises(WorkerLostError):
        await asyncio.wait_for(call, 15)
    assert notes.counts()["x"] == 0


async def test_the_worker_that_handed_on_is_killed(
    shared_fleet: Fleet, notes: Notes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_silence, "SILENCE", 3.0)
    first, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    moved = asyncio.create_task(pool.submit(jobs.work, notes.path, "moved", 4.0))
    await until(lambda: pending_of(pool)[-1].worker)  # the first beats for it
    await shared_fleet.worker(max_workers=1)
    await notes.wait(2)
    first.signal(signal.SIGKILL)
    assert await asyncio.wait_for(moved, 15) == "moved"
    with pytest.raises(WorkerLostError):
        await running
    assert notes.most() == 1


async def test_cancelled_after_it_was_handed_on(shared_fleet: Fleet, notes: Notes, gate: Gate) -> None:
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    call = asyncio.create_task(pool.submit(jobs.spin, notes.path))
    await until(lambda: pending_of(pool)[-1].worker)
    pending = pending_of(pool)[-1]
    first = pending.worker
    await shared_fleet.worker(max_workers=1)
    pid = int((await notes.wait(2))[1])
    pending.worker = first  # as long as the other one has not beaten
    call.cancel()
    await until(lambda: not alive(pid), 5)
    assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, "x"), 5) == "x"
    assert not running.done()
    gate.open()
    await running


async def test_the_deadline_goes_with_it(shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer) -> None:
    await peer.start()
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    call = asyncio.create_task(pool(timeout=8)(jobs.remaining)())
    await asyncio.sleep(0.3)  # of the time that the call has
    begin = time.monotonic()
    await shared_fleet.worker(max_workers=1)
    left = await asyncio.wait_for(call, 8)
    assert 0 < left < 7.7 - (time.monotonic() - begin) * 0.5
    with pytest.raises(CallTimeoutError):
        await asyncio.gather(*(pool(timeout=0.3)(jobs.spin)(notes.path) for _ in range(2)))
    gate.open()
    await running


async def test_a_large_call_is_handed_on_before_it_is_pulled(
    shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.start()
    for _ in range(2):
        await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    (running,) = await busy(pool, notes, gate)
    for _ in range(4):
        await pool.submit(jobs.take_bytes, bytes(LARGE))
    owner: Any = pool._home.engine._transfer.owner  # type: ignore[union-attr]
    pulls: Counter[bytes] = Counter()
    pull = owner.pull
    monkeypatch.setattr(owner, "pull", lambda frame: (pulls.update([bytes(frame.body[:16])]), pull(frame)))
    for n in range(40):
        assert (
            await asyncio.wait_for(pool.submit(jobs.note_bytes, notes.path, bytes(LARGE + n)), 10)
            == LARGE + n
        )
        if (
            sum(frame.kind == FrameKind.CALL and bool(frame.flags & Flag.REFERRED) for _, frame in peer.heard)
            > 2
        ):
            break
    else:
        raise AssertionError("none was handed on")
    assert set(pulls.values()) == {1}
    assert notes.most() == 1
    assert not running.done()
    gate.open()
    await running


async def test_a_large_call_that_was_pulled_is_handed_on_too(
    shared_fleet: Fleet, notes: Notes, gate: Gate
) -> None:
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    call = asyncio.create_task(pool.submit(jobs.note_bytes, notes.path, bytes(LARGE)))
    owner: Any = pool._home.engine._transfer.owner  # type: ignore[union-attr]
    await until(
        lambda: any(it.reference and owner.delivered(it.reference.payload) for it in pending_of(pool))
    )
    await shared_fleet.worker(max_workers=1)
    assert await asyncio.wait_for(call, 10) == LARGE
    assert notes.most() == 1
    gate.open()
    await running


async def test_a_stream_is_handed_on(shared_fleet: Fleet, notes: Notes, gate: Gate) -> None:
    _, pool, running = await one_busy_worker(shared_fleet, notes, gate)

    async def read() -> list[int]:
        return [n async for n in pool.stream(jobs.numbers, notes.path, 500)]

    reading = asyncio.create_task(read())
    await sent(pool, 2)
    await shared_fleet.worker(max_workers=1)
    assert await asyncio.wait_for(reading, 10) == list(range(500))
    assert notes.counts()["closed"] == 1
    gate.open()
    await running


async def test_a_fleet_without_a_free_child_fails_who_will_not_queue(
    shared_fleet: Fleet, notes: Notes, gate: Gate, tmp_path: Path
) -> None:
    for _ in range(2):
        await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    hasty = shared_fleet.caller(overload="fail")
    (one,) = await busy(pool, notes, gate)
    for n in range(20):  # one child of two is free
        assert await asyncio.wait_for(hasty.submit(jobs.work, notes.path, f"{n}"), 5) == f"{n}"
    other = Gate(tmp_path / "other")
    (two,) = await busy(pool, notes, other)
    with pytest.raises(ExecutorOverloadError, match="no worker of 'faults' has a free child") as failed:
        await asyncio.wait_for(hasty.submit(jobs.work, notes.path, "refused"), 5)
    assert failed.value.retryable
    with pytest.raises(ExecutorOverloadError):
        await asyncio.wait_for(hasty.submit(jobs.note_bytes, notes.path, bytes(LARGE)), 5)
    patient = asyncio.create_task(pool.submit(jobs.work, notes.path, "patient"))
    await asyncio.sleep(0.3)  # longer than who may not queue is let wait
    assert not patient.done()
    gate.open()
    other.open()
    assert await asyncio.wait_for(patient, 5) == "patient"
    await asyncio.gather(one, two)
    assert notes.counts()["refused"] == 0


async def test_full_for_good_measure(shared_fleet: Fleet, notes: Notes, gate: Gate) -> None:
    """Beyond max_backlog calls wait with their callers, in place of the worker."""
    await shared_fleet.worker(max_workers=1, max_backlog=3)
    pool = shared_fleet.caller()
    (running,) = await busy(pool, notes, gate)
    keys = [f"{n}" for n in range(10)]
    waiting = [asyncio.create_task(pool.submit(jobs.work, notes.path, key)) for key in keys]
    await until(lambda: sum(it.retries > 0 for it in pending_of(pool)) >= 8)
    assert len(pending_of(pool)) == 11
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 15) == keys
    await running
    assert notes.most() == 1


async def test_a_bounce_is_no_overload(shared_fleet: Fleet, notes: Notes, peer: Peer) -> None:
    """A leaving worker's call goes to another one, also where calls fail fast."""
    await peer.start(posing=False)
    got: list[Message] = []
    leaving = await peer.connection.subscribe(peer.subjects.call, got.append, QUEUE_GROUP)
    await peer.connection.flush()
    pool = shared_fleet.caller(overload="fail")
    call = asyncio.create_task(pool.submit(jobs.work, notes.path, "x"))
    await until(lambda: got)
    await peer.connection.unsubscribe(leaving)
    await shared_fleet.worker(max_workers=1)
    head = check(got[0].data)
    assert head.flags & Flag.NO_QUEUE
    await peer.connection.publish(got[0].reply, encode(Frame(FrameKind.REFUSED, head.id)))
    assert await asyncio.wait_for(call, 10) == "x"
    assert notes.lines() == ["x"]


async def test_a_refused_call_waits_for_the_next_worker(
    shared_fleet: Fleet, notes: Notes, gate: Gate
) -> None:
    """A fleet of one that is being replaced has nobody for a moment."""
    first = await shared_fleet.worker(max_workers=1, drain_timeout=0.1)
    pool = shared_fleet.caller()
    (running,) = await busy(pool, notes, gate)
    call = await queued(pool, notes, "x")
    first.signal(signal.SIGTERM)
    await first.ended()
    await until(lambda: any(it.retries and it.missed is not None for it in pending_of(pool)))
    with pytest.raises(NoWorkersError):  # a new call is told at once
        await pool.submit(jobs.pid)
    assert not call.done()
    await shared_fleet.worker(max_workers=1)
    assert await asyncio.wait_for(call, 10) == "x"
    with pytest.raises(WorkerLostError):
        await running
    assert notes.counts()["x"] == 1


async def test_a_refused_call_does_not_wait_for_ever(
    shared_fleet: Fleet, notes: Notes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_engine, "_GAP", 0.5)
    first = await shared_fleet.worker(max_workers=1, drain_timeout=0.1)
    pool = shared_fleet.caller()
    (running,) = await busy(pool, notes, gate)
    call = await queued(pool, notes, "x")
    first.signal(signal.SIGTERM)
    await until(lambda: any(it.retries for it in pending_of(pool)))
    with pytest.raises(NoWorkersError):
        await asyncio.wait_for(call, 15)
    with pytest.raises(WorkerLostError):
        await running


async def test_a_leaving_worker_takes_nothing_more(
    shared_fleet: Fleet, notes: Notes, gate: Gate, peer: Peer
) -> None:
    await peer.start()
    first, pool, running = await one_busy_worker(shared_fleet, notes, gate)
    call = asyncio.create_task(pool.submit(jobs.work, notes.path, "queued"))
    crowded = await peer.crowded()
    await peer.say(peer.subjects.peers, FrameKind.WAITING, 0)
    second = await shared_fleet.worker(max_workers=1)
    assert await asyncio.wait_for(call, 5) == "queued"
    first.signal(signal.SIGTERM)
    await until(lambda: any(who == crowded and it.seconds == -1 for who, it in peer.heard))
    # Handed to it all the same, a call is refused at once, and its caller told.
    told: list[int] = []
    await peer.connection.subscribe("stranger.*", lambda it: told.extend(f.kind for f in decode_all(it.data)))
    id = new_id()
    await asyncio.sleep(0.6)  # past the moment in which it still takes what it asked for
    cover = Frame(FrameKind.REFUSED, id, name=f"stranger.{id.hex()}".encode())
    late = Frame(FrameKind.CALL, id, b"tests.faults.jobs:pid", body=pickle.dumps(((), {}), 5), hops=1)
    receipt = f"{peer.address}.{id.hex()}"
    await peer.connection.publish(crowded, encode(cover) + encode(late), receipt)
    await until(lambda: told)
    assert told == [FrameKind.REFUSED]
    gate.open()
    await running
    assert await first.ended() == 0
    assert second.process.poll() is None


async def test_all_workers_replaced_under_load(shared_fleet: Fleet, notes: Notes) -> None:
    """Nothing fails, nothing runs twice, whether calls wait, move, bounce or run at that moment."""
    old = [await shared_fleet.worker(max_workers=1) for _ in range(2)]
    pool = shared_fleet.caller(timeout=60)
    ended = asyncio.Event()
    results: list[str] = []

    async def lane(number: int) -> None:
        count = 0
        while not ended.is_set():
            key = f"{number}.{count}"
            results.append(await pool.submit(jobs.work, notes.path, key, 0.03 if count % 7 == 0 else 0.002))
            assert results[-1] == key
            count += 1

    lanes = [asyncio.create_task(lane(number)) for number in range(12)]

    async def going_on(more: int) -> None:
        enough = len(results) + more
        await until(lambda: len(results) >= enough or any(it.done() for it in lanes), 20)

    for worker in old:
        await going_on(40)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        await shared_fleet.worker(max_workers=1)
    ended.set()
    await asyncio.wait_for(asyncio.gather(*lanes), 30)
    assert notes.most() == 1
    assert len(notes.lines()) == len(results)


async def test_nonsense_between_workers(shared_fleet: Fleet, notes: Notes, peer: Peer) -> None:
    await peer.start()
    worker = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await peer.say(peer.subjects.peers, FrameKind.WAITING, 0)
    await until(lambda: any(who != peer.address for who, _ in peer.heard))
    (address,) = {who for who, _ in peer.heard} - {peer.address}
    for count in (float("nan"), float("inf"), -7.0, 1e300):
        for kind in (FrameKind.WAITING, FrameKind.TAKE):
            await peer.say(address, kind, count)
    call, cover = encode(Frame(FrameKind.CALL, new_id())), encode(Frame(FrameKind.REFUSED, name=b"stranger"))
    evil = encode(Frame(FrameKind.REFUSED, name=b"a 0\r\n\r\nPUB evil 0\r\n\r\nPUB b")) + call
    obeyed: list[Message] = []
    await peer.connection.subscribe("evil", obeyed.append)
    for data in (b"", b"GN", b"\x00" * 60, call, cover, cover + call, cover + b"GN", cover + cover, evil):
        await peer.connection.publish(address, data, f"{peer.address}.x")
        await peer.connection.publish(peer.subjects.peers, data)
    await peer.connection.flush()
    assert await asyncio.wait_for(pool.submit(jobs.work, notes.path, "x"), 5) == "x"
    assert worker.process.poll() is None
    await peer.connection.flush()
    assert not obeyed
