"""Calls whose arguments, results or items are pulled in chunks, through every way of breaking off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import CallTimeoutError, ExecutorError, NatsExecutor, WorkerLostError
from genro_nats.bench.processes import family
from genro_nats.codec.frame import HEADER_SIZE, Flag, Frame, FrameKind, chunks, decode, encode, size
from genro_nats.codec.reference import Reference, refer
from genro_nats.executor import nats_replies
from genro_nats.executor.nats_pending import Pending
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call, new_id
from genro_nats.server import EmbeddedServer
from genro_nats.transport.nats import Message
from genro_nats.transport.subjects import pool_subjects
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.answers import item_frame, value_reply
from tests.faults import jobs
from tests.faults.conftest import ROOT, Fleet, Notes, Worker, until
from tests.transport.test_transfer import Held

pytestmark = pytest.mark.anyio

LARGE = 20_000_000  # bytes


def transfer_of(pool: NatsExecutor) -> Transfer:
    """The caller's side of transfers."""
    found: Transfer = pool._home.engine._transfer  # type: ignore[union-attr]
    return found


def pending_of(pool: NatsExecutor) -> list[Pending]:
    """Its calls without an answer."""
    return list(pool._home.engine._pending.values())  # type: ignore[union-attr]


def kept(pool: NatsExecutor) -> int:
    """Payloads that the caller keeps for workers."""
    return len(transfer_of(pool).owner)


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet on a server with the default max_payload of 1 MiB."""
    directory = tmp_path / "narrow"
    directory.mkdir(mode=0o700)
    with EmbeddedServer(directory=directory, max_payload=1 << 20, jetstream=False, reuse=False) as server:
        fleet = Fleet(server, "narrow", tmp_path)
        yield fleet
        await fleet.aclose()


def framed(total: int) -> bytes:
    """Bytes with which a call of ``take_bytes`` takes a frame of ``total`` bytes."""

    def length(count: int) -> int:
        return sum(map(size, chunks(CallEncoder().frame(Call(jobs.take_bytes, (bytes(count),), {}), 1.0))))

    count = total - (length(total) - total)
    assert length(count) == total
    return bytes(count)


@pytest.mark.parametrize("off", [-1, 0, 1])
async def test_at_the_inline_limit(narrow: Fleet, off: int) -> None:
    """The limits count the whole frame, a long name included."""
    await narrow.worker(max_workers=1)
    for limit in (200_000, 8 << 20):  # the option's, and where that is larger the server's
        pool = narrow.caller(inline_limit=limit, timeout=10)
        data = framed(min(limit, 1 << 20) + off)
        assert await pool.submit(jobs.take_bytes, data) == len(data)
        assert transfer_of(pool).line.opened == (off > 0)


@pytest.mark.parametrize("off", [-1, 0, 1])
async def test_results_at_the_limit(narrow: Fleet, off: int) -> None:
    await narrow.worker(max_workers=1, inline_limit=8 << 20)
    pool = narrow.caller(timeout=10)
    value = bytes(1_000_000)
    overhead = sum(map(size, value_reply(Frame(FrameKind.CALL), value, 0.0))) - len(value)
    count = (1 << 20) - overhead + off
    assert await pool.submit(jobs.give_bytes, count) == bytes(count)
    assert transfer_of(pool).line.opened == (off > 0)


@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("limit", [300_000, 8 << 20])
async def test_items_at_the_limit(narrow: Fleet, limit: int, off: int) -> None:
    """At the worker's inline limit, and at the server's max_payload where that is less."""
    await narrow.worker(max_workers=1, inline_limit=limit)
    pool = narrow.caller(timeout=10)
    value = bytes(250_000)
    overhead = sum(map(size, item_frame(Frame(FrameKind.CALL), value))) - len(value)
    count = min(limit, 1 << 20) - overhead + off
    assert [item async for item in pool(jobs.mixed_items).stream([count])] == [bytes(count)]
    assert transfer_of(pool).line.opened == (off > 0)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("function", [jobs.show_and_return, jobs.show_and_fail, jobs.show_and_return_large])
async def test_an_outcome_right_behind_large_progress(narrow: Fleet, function: Any, compressed: bool) -> None:
    """It comes while that is pulled, or expanded."""
    await narrow.worker(max_workers=1)
    pool = narrow.caller(timeout=4, compression="zstd" if compressed else None)
    for _ in range(5):
        seen: list[Any] = []
        call = pool(function).options(on_progress=seen.append)
        if function is jobs.show_and_fail:
            with pytest.raises(LookupError, match="after progress"):
                await call(3_000_000)
        else:
            assert await call(3_000_000) in (3, bytes(3_000_000))
        assert [(update.text, len(update.data)) for update in seen] == [("shown", 3_000_000)]


async def test_what_waits_behind_a_pull_of_its_call_is_wanted(
    narrow: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow line the worker would give it up before its turn has come."""
    await narrow.worker(max_workers=1)
    pool = narrow.caller(timeout=20)
    await pool.submit(jobs.pid)
    monkeypatch.setattr(nats_replies, "REMIND", 0.0)
    waited: set[bytes] = set()
    want = Transfer.want

    def seen(self: Transfer, reference: Reference) -> None:
        waited.add(reference.payload)
        want(self, reference)

    monkeypatch.setattr(Transfer, "want", seen)
    sizes = [3_000_000] * 8
    found = [(b[0], len(b)) async for b in pool(jobs.mixed_items).stream(sizes)]
    assert found == list(enumerate(sizes))
    assert len(waited) > 1
    replies = pool._home.engine._replies  # type: ignore[union-attr]
    await until(lambda: replies._reminding is None)


async def endless() -> None:
    await asyncio.Event().wait()


async def test_an_outcome_that_is_sent_again_waits_once(narrow: Fleet, notes: Notes) -> None:
    """Behind a pull that takes long; what was pulled by then would else be asked for anew."""
    await narrow.worker(max_workers=1)
    pool = narrow.caller(timeout=20)
    call = asyncio.create_task(pool.submit(jobs.late_bytes, notes.path, 5.0, 10))
    await notes.wait()
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    (pending,) = pending_of(pool)
    pending.pulling, pending.pulled = asyncio.create_task(endless()), FrameKind.PROGRESS
    reference = Reference(bytes(16), 5_000_000, transfer_of(pool).line.owner_subject)
    start = encode(Frame(FrameKind.REPLY, pending.call.id))
    outcome, _ = decode(refer(start, reference))
    item = Frame(FrameKind.PROGRESS, pending.call.id)
    for frame in (item, item, outcome, outcome, item, outcome):
        engine._replies._frame(frame, pending.worker, 100)
    assert list(pending.backlog) == [item, item, outcome]
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_a_caller_may_resize_what_it_sent_once_its_call_has_failed(narrow: Fleet) -> None:
    await narrow.worker(max_workers=1)
    memory = bytearray(3_000_000)
    for value in (memory, {"data": [memory]}):
        for pool in (narrow.caller(timeout=10), narrow.caller(timeout=10, compression="zstd")):
            try:
                await pool.submit(jobs.refuse, value)
            except LookupError:
                memory.extend(b"in the clause, where the traceback lives")
    assert len(memory) == 3_000_000 + 4 * 40


async def test_any_order_of_items(narrow: Fleet) -> None:
    await narrow.worker(max_workers=1)
    pool = narrow.caller(timeout=20)
    sizes = [10, 3_000_000, 10, 5_000_000, 2_000_000, 10, 70_000] * 4
    found = [(b[0], len(b)) async for b in pool(jobs.mixed_items).stream(sizes)]
    assert found == [(number, size) for number, size in enumerate(sizes)]


async def test_the_caller_frees_what_it_kept(narrow: Fleet) -> None:
    await narrow.worker()
    pool = narrow.caller(timeout=10)
    datas = [os.urandom(2_000_000 + n) for n in range(6)]
    assert await asyncio.gather(*(pool(jobs.echo_note)(os.devnull, d) for d in datas)) == datas
    assert kept(pool) == 0


def shared_memory(worker: Worker) -> int:
    """Anonymous files that the worker's processes hold or map."""
    found = 0
    for pid in family(worker.process.pid):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/maps").read_text().count("memfd:genro-nats")
            found += sum("memfd:genro-nats" in str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="memfd")
@pytest.mark.parametrize("count", [12, 50], ids=["that has ended", "that goes on"])
async def test_a_stream_that_is_left_holds_nothing(narrow: Fleet, count: int) -> None:
    worker = await narrow.worker(max_workers=1, max_backlog_size=30_000_000)
    pool = narrow.caller(timeout=20)
    for _ in range(3):
        async with contextlib.aclosing(pool(jobs.mixed_items).stream([2_000_000] * count)) as items:
            assert len(await anext(items)) == 2_000_000
        assert await pool.submit(jobs.take_bytes, b"abc") == 3
        await until(lambda: shared_memory(worker) == 0, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="memfd")
async def test_arguments_that_could_not_be_pulled_hold_nothing(narrow: Fleet) -> None:
    worker = await narrow.worker(max_workers=1)
    pool = narrow.caller(timeout=20)
    await pool.submit(jobs.take_bytes, b"abc")
    held = Held(transfer_of(pool), 4)
    call = asyncio.create_task(pool.submit(jobs.take_bytes, bytes(20_000_000)))
    await until(lambda: held.left < 0 and shared_memory(worker) > 0)
    owner = transfer_of(pool).owner
    owner.drop(next(iter(owner.payloads)))  # as if its caller had died: who asks again is told so
    held.open.set()
    held.left = 10**6
    with pytest.raises(ExecutorError):
        await call
    await until(lambda: shared_memory(worker) == 0, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="memfd")
async def test_the_worker_frees_what_it_held(narrow: Fleet, notes: Notes) -> None:
    worker = await narrow.worker()
    pool = narrow.caller(timeout=10)
    data = os.urandom(1 << 20) * 20
    assert await pool.submit(jobs.echo_note, notes.path, data) == data
    await until(lambda: shared_memory(worker) == 0, 1.5)  # by its acknowledgement, not by what comes later
    held = Held(transfer_of(pool), 4)
    call = asyncio.create_task(pool.submit(jobs.echo_note, notes.path, data))
    await until(lambda: held.left < 0)
    assert shared_memory(worker) > 0
    call.cancel()
    await until(lambda: shared_memory(worker) == 0, 3)
    held.open.set()
    held.left = 10**6
    call = asyncio.create_task(pool.submit(jobs.echo_note, notes.path, data))
    await until(lambda: transfer_of(pool)._puller._pulls)
    call.cancel()
    await until(lambda: shared_memory(worker) == 0, 3)


async def test_cancelled_while_its_arguments_are_pulled(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 4)
    call = asyncio.create_task(pool.submit(jobs.note_bytes, notes.path, bytes(LARGE)))
    await until(lambda: held.left < 0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert kept(pool) == 0
    held.open.set()
    held.left = 10**6
    # The worker has room, and never ran it.
    assert await asyncio.wait_for(pool.submit(jobs.note_bytes, notes.path, bytes(3_000_000)), 5) == 3_000_000
    assert notes.lines() == ["3000000"]


async def test_the_deadline_passes_while_its_arguments_are_pulled(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 4)
    with pytest.raises(CallTimeoutError):
        await pool(timeout=0.5)(jobs.note_bytes)(notes.path, bytes(LARGE))
    held.open.set()
    held.left = 10**6
    assert await asyncio.wait_for(pool.submit(jobs.note_bytes, notes.path, bytes(3_000_000)), 5) == 3_000_000
    assert notes.lines() == ["3000000"]


async def test_the_time_left_counts_from_the_call_not_from_its_arguments(shared_fleet: Fleet) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 4)
    call = asyncio.create_task(pool(timeout=5)(jobs.remaining_of)(bytes(LARGE)))
    await until(lambda: held.left < 0)
    await asyncio.sleep(1)  # of the time that the call has
    held.open.set()
    assert 0 < await call < 4.05


async def test_a_worker_lost_before_it_had_the_arguments(shared_fleet: Fleet, notes: Notes) -> None:
    """It can't have started the call, so another one gets it."""
    first = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(timeout=30)
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 4)
    call = asyncio.create_task(pool.submit(jobs.note_bytes, notes.path, bytes(LARGE)))
    await until(lambda: held.left < 0)
    first.signal(signal.SIGKILL)
    await first.ended()
    await shared_fleet.worker(max_workers=1)
    held.open.set()
    held.left = 10**6
    assert await asyncio.wait_for(call, 12) == LARGE
    assert notes.lines() == [str(LARGE)]


async def refuse_late(pool: NatsExecutor) -> None:
    """What a lost worker says that leaves when it is back."""
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    (pending,) = engine._pending.values()
    refused = encode(Frame(FrameKind.REFUSED, pending.call.id))
    await until(lambda: pending.worker)  # the one that runs it now
    for lost in {"lost", *pending.left}:  # one that never showed itself has no name
        engine._replies.received(Message(engine._inbox + pending.call.id.hex(), lost, refused, ""))
    assert not pending.retries


@pytest.mark.parametrize("frozen", [6.0, 11.0], ids=["a while", "so long that its pull ends"])
async def test_a_lost_worker_that_comes_back_ends_nothing(
    shared_fleet: Fleet, notes: Notes, frozen: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of the arguments that it never had is not about those that another one has now."""
    first = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller(timeout=90)
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 4)
    release = tmp_path / "release"
    call = asyncio.create_task(pool.submit(jobs.note_and_hold, notes.path, str(release), bytes(LARGE)))
    await until(lambda: held.left < 0)
    begin = time.monotonic()
    first.signal(signal.SIGSTOP)
    # The frozen one still has its share of what the server deals out: it may be dealt the call again, and again.
    monkeypatch.setattr("genro_nats.executor.nats_engine._LOSSES", 10)
    for _ in range(2):
        await shared_fleet.worker(max_workers=1)
    held.open.set()
    held.left = 10**6
    await notes.wait(1, 50)
    await asyncio.sleep(max(0.0, begin + frozen - time.monotonic()))
    first.signal(signal.SIGCONT)
    spoken = pool.metrics["completed"]
    await until(lambda: first.count("call.failed") >= 1, 25)  # it has said so, of each that it was dealt
    await refuse_late(pool)
    release.touch()
    assert await asyncio.wait_for(call, 20) == LARGE
    assert len(notes.lines()) == 1 and pool.metrics["completed"] == spoken + 1


async def test_a_worker_lost_while_its_result_is_pulled(shared_fleet: Fleet, notes: Notes) -> None:
    worker = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.start()
    call = asyncio.create_task(pool.submit(jobs.echo_note, notes.path, bytes(400_000_000)))
    await until(lambda: transfer_of(pool)._puller._pulls, 20)
    worker.signal(signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="which has run it"):
        await asyncio.wait_for(call, 12)
    assert notes.counts() == {"echo": 1}
    assert not transfer_of(pool)._puller._pulls


async def test_a_worker_stays_until_its_results_are_pulled(shared_fleet: Fleet, notes: Notes) -> None:
    worker = await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.start()
    data = os.urandom(1 << 20) * 400
    call = asyncio.create_task(pool.submit(jobs.echo_note, notes.path, data))
    await until(lambda: transfer_of(pool)._puller._pulls, 20)
    worker.signal(signal.SIGTERM)
    assert await asyncio.wait_for(call, 20) == data
    assert await worker.ended() == 0
    assert worker.count("worker.drained") == 1


async def test_a_draining_worker_hands_on_what_it_pulls(shared_fleet: Fleet, notes: Notes) -> None:
    first = await shared_fleet.worker(max_workers=1, drain_timeout=0.3)
    pool = shared_fleet.caller(timeout=20, workers_timeout=20)  # the second may be slow to come
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 4)
    call = asyncio.create_task(pool.submit(jobs.note_bytes, notes.path, bytes(LARGE)))
    await until(lambda: held.left < 0)
    # Nobody is there when it comes back: the next worker is still on its way.
    first.signal(signal.SIGTERM)
    await first.ended()
    await until(lambda: pending_of(pool)[0].missed is not None)
    await shared_fleet.worker(max_workers=1)
    held.open.set()
    held.left = 10**6
    assert await asyncio.wait_for(call, 10) == LARGE
    assert notes.lines() == [str(LARGE)]


async def test_over_a_restart_of_the_server(fleet: Fleet, notes: Notes) -> None:
    await fleet.worker(max_workers=1)
    pool = fleet.caller(timeout=30)
    data = os.urandom(1 << 20) * 20
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 8)
    call = asyncio.create_task(pool.submit(jobs.echo_note, notes.path, data))
    await until(lambda: held.left < 0)
    fleet.server.kill()
    await asyncio.to_thread(fleet.server.restart)
    held.open.set()
    held.left = 10**6
    assert await asyncio.wait_for(call, 20) == data
    assert notes.counts() == {"echo": 1}


async def test_a_large_result_over_an_outage(fleet: Fleet, notes: Notes) -> None:
    """Made while nobody can hear of it, it is announced again."""
    await fleet.worker(max_workers=1)
    pool = fleet.caller(timeout=30)
    call = asyncio.create_task(pool.submit(jobs.late_bytes, notes.path, 0.5, LARGE))
    await notes.wait()
    fleet.server.kill()
    await notes.wait(2)  # the result is made
    await asyncio.to_thread(fleet.server.restart)
    assert len(await asyncio.wait_for(call, 15)) == LARGE
    assert notes.counts() == {"late": 1, "made": 1}


async def publish_call(pool: NatsExecutor, data: bytes, id: bytes) -> Frame:
    """Publish a hand-made call; what the worker answers."""
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    answered: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
    inbox = f"{pool.options.prefix}.reply.stranger{os.urandom(4).hex()}"

    def heard(message: Any) -> None:
        frame = decode(message.data)[0]
        if frame.kind == FrameKind.ERROR and not answered.done():
            answered.set_result(frame)

    await engine._connection.subscribe(f"{inbox}.*", heard)
    subject = pool_subjects(pool.options.prefix, "faults").call
    await engine._connection.publish(subject, data, f"{inbox}.{id.hex()}")
    return await asyncio.wait_for(answered, 8)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (Reference(bytes(16), 1 << 62, "{prefix}.bulk.x.owner"), "PayloadTooLargeError"),
        (Reference(bytes(16), 5_000_000, "{prefix}.bulk.nobody.owner"), "ConnectionLostError"),
        (Reference(bytes(16), 5_000_000, "{prefix}.control.faults"), "DecodeError"),
        (Reference(bytes(16), 5_000_000, "{own}"), "TransportError"),
    ],
    ids=["absurd", "nobody", "foreign", "missing"],
)
async def test_hostile_references(shared_fleet: Fleet, reference: Reference, error: str) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    subject = reference.owner.format(prefix=shared_fleet.prefix, own=transfer_of(pool).line.owner_subject)
    id = new_id()
    start = encode(Frame(FrameKind.CALL, id, b"tests.faults.jobs:pid"))
    frame = await publish_call(pool, refer(start, reference._replace(owner=subject)), id)
    assert frame.name.decode().endswith(error)
    assert await pool.submit(jobs.take_bytes, bytes(2_000_000)) == 2_000_000


@pytest.mark.parametrize("change", ["id", "name", "flags", "kind", "garbage", "nested"])
async def test_a_payload_that_is_not_what_was_announced(shared_fleet: Fleet, change: str) -> None:
    await shared_fleet.worker(max_workers=1)
    pool = shared_fleet.caller()
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    id = new_id()
    body = pickle.dumps(((), {}), 5)  # a call that would run, were it not for the difference
    told = Frame(FrameKind.CALL, id, b"tests.faults.jobs:pid", body=body, buffers=[bytes(2_000_000)])
    start = encode(told)
    if change == "id":
        told.id = new_id()
    elif change == "name":
        told.name = b"tests.faults.jobs:segfault"
    elif change == "flags":
        told.flags = Flag.STREAM
    elif change == "kind":
        told.kind = FrameKind.REPLY
    elif change == "nested":
        told.flags, told.kind = Flag.REFERRED, FrameKind.ERROR
    data = os.urandom(2_000_000) if change == "garbage" else encode(told)
    reference = transfer_of(pool).owner.offer([data])
    frame = await publish_call(pool, refer(start, reference), id)
    assert frame.name.decode().endswith("DecodeError")
    assert len(start) > HEADER_SIZE
    assert await pool.submit(jobs.take_bytes, b"abc") == 3


FROZEN = """
import asyncio, json, sys
from genro_nats import NatsExecutor, PoolOptions
from tests.faults import jobs
from tests.faults.conftest import until
from tests.faults.test_large_payloads import transfer_of
from tests.transport.test_transfer import Held

async def main():
    pool = NatsExecutor("faults", PoolOptions(**json.loads(sys.argv[1])))
    await pool.submit(jobs.take_bytes, bytes(2_000_000))
    held = Held(transfer_of(pool), 2)
    calls = [asyncio.create_task(pool.submit(jobs.take_bytes, bytes(5_000_000))) for _ in range(16)]
    await until(lambda: held.left < 0)
    print("held", flush=True)
    await asyncio.gather(*calls)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_caller_that_freezes_holds_up_no_other(
    shared_fleet: Fleet, tmp_path: Path, end: signal.Signals
) -> None:
    await shared_fleet.worker()
    pool = shared_fleet.caller(timeout=60)
    assert await pool.submit(jobs.take_bytes, bytes(3_000_000)) == 3_000_000
    server = shared_fleet.server
    options = shared_fleet.options(url=server.url, user=server.user, password=server.password)
    with (tmp_path / "frozen").open("wb") as out:
        frozen = subprocess.Popen([sys.executable, "-c", FROZEN, json.dumps(options)], stdout=out, cwd=ROOT)
    try:
        await until(lambda: "held" in (tmp_path / "frozen").read_text())
        frozen.send_signal(end)
        async with asyncio.timeout(5):
            for _ in range(3):
                calls = [pool.submit(jobs.take_bytes, bytes(3_000_000)) for _ in range(4)]
                assert await asyncio.gather(*calls) == [3_000_000] * 4
    finally:
        frozen.kill()
        frozen.wait(10)
