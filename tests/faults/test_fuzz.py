"""A hundred thousand messages of who has no key, or no data to send: no pickle is opened, all are counted."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import nats
import pytest

from genro_nats import NatsExecutor
from genro_nats.codec.frame import Flag, Frame, FrameKind, encode
from genro_nats.codec.reference import Reference, refer
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call
from tests.faults import jobs, registered
from tests.faults.conftest import Fleet, Worker, until
from tests.faults.test_signing import Keys, refusals

pytestmark = pytest.mark.anyio
TURNS = 10
BATCH = 5_000


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.delenv("GENRO_NATS_KEY", raising=False)
    return Keys(tmp_path)


class Flood:
    """A client that writes many messages at once, made of good ones."""

    def __init__(self, client: Any, seed: int, good: list[bytes]) -> None:
        self.client = client
        self._rng = random.Random(seed)
        self._good = good
        self.sent: Counter[str] = Counter()

    def mutated(self) -> bytes:
        rng = self._rng
        data = bytearray(rng.choice(self._good))
        match rng.randrange(6):
            case 0:
                return rng.randbytes(rng.randrange(1, 300))
            case 1:
                return bytes(data[: rng.randrange(1, len(data))])
            case 2:
                return bytes(data) + rng.randbytes(rng.randrange(1, 20))
            case 3:  # of two
                other = rng.choice(self._good)
                return bytes(data[: rng.randrange(1, len(data))]) + other[rng.randrange(len(other)) :]
            case _:
                for _ in range(rng.randrange(1, 6)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                return bytes(data)

    async def batch(self, subjects: list[str]) -> None:
        """Each goes to one of the subjects, every fourth with headers."""
        rng, lines = self._rng, []
        for _ in range(BATCH):
            subject, data = rng.choice(subjects), self.mutated()
            self.sent[subject] += 1
            reply = f"stranger.x.{(data[32:48] or b'none').hex()}"  # mostly that of a call with this id
            if rng.randrange(4):
                lines.append(f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n")
            else:
                head = (
                    b"NATS/1.0\r\nNats-"
                    + rng.choice((b"Schedule-Target: x.y", b"Msg-Id: \xff"))
                    + b"\r\n\r\n"
                )
                sizes = f"{len(head)} {len(head) + len(data)}"
                lines.append(f"HPUB {subject} {reply} {sizes}\r\n".encode() + head + data + b"\r\n")
        self.client._transport.write(b"".join(lines))
        await self.client.flush()


async def flood_of(fleet: Fleet, seed: int, good: list[bytes]) -> Flood:
    server = fleet.server
    return Flood(await nats.connect(server.url, user=server.user, password=server.password), seed, good)


def evil(keys: Keys, prefix: str) -> list[bytes]:
    """Frames that would leave a mark if a pickle of theirs was opened, and references to nothing."""
    id = os.urandom(16)
    reference = Reference(os.urandom(16), 5_000_000, f"{prefix}.bulk.=.x.owner")
    kinds = (FrameKind.CALL, FrameKind.REPLY, FrameKind.ITEM, FrameKind.PROGRESS, FrameKind.ERROR)
    return [
        *(keys.call(id, kind) for kind in kinds),
        keys.call(id, flags=Flag.BY_VALUE, buffers=[b"\x03\x0b" + keys.evil]),
        keys.call(id, FrameKind.FUNCTION),
        *(refer(keys.call(id, kind), reference) for kind in kinds),
        encode(Frame(FrameKind.CANCEL, id)),
        encode(Frame(FrameKind.PULL, id, name=f"{prefix}.reply.x".encode(), body=bytes(32))),
    ]


async def serves(worker: Worker, pool: NatsExecutor, function: Any) -> None:
    assert await asyncio.wait_for(pool.submit(function, b"abc"), 15) in (3, b"abc")
    assert worker.process.poll() is None


def unharmed(worker: Worker) -> None:
    assert worker.count("server.down") == worker.count("child.lost") == 0


async def test_without_the_key(shared_fleet: Fleet, keys: Keys) -> None:
    path = keys.file(keys.one)
    worker = await shared_fleet.worker(key_file=path, max_workers=1)
    pool = shared_fleet.caller(key_file=path)
    await serves(worker, pool, jobs.take_bytes)
    await pool.submit(jobs.take_bytes, bytes(2_000_000))  # both have their bulk subjects now
    prefix = shared_fleet.prefix
    good = evil(keys, prefix)
    heard: list[bytes] = []
    flood = await flood_of(shared_fleet, 1, good)

    async def hear(message: Any) -> None:
        heard.append(message.data)

    await flood.client.subscribe(f"{prefix}.>", cb=hear)
    await flood.client.flush()
    await pool.submit(jobs.take_bytes, b"recorded")
    await until(lambda: len(heard) >= 2)
    good += [data[:52] + frame for frame in good for data in heard[:2]]  # with seals of other messages
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    at_worker = [f"{prefix}.{room}.faults" for room in ("call", "control", "peers")]
    for _ in range(TURNS):
        await flood.batch([*at_worker, engine._inbox + os.urandom(16).hex()])
        await serves(worker, pool, jobs.take_bytes)
    await flood.client.close()
    counted = refusals(worker)
    assert sum(counted.values()) == sum(flood.sent[subject] for subject in at_worker)
    assert set(counted) >= {"unsigned", "wrong signature", "unknown key"}
    assert not keys.mark.exists()
    unharmed(worker)


async def test_where_only_data_are_taken(shared_fleet: Fleet, keys: Keys) -> None:
    allow = ["tests.faults.registered:listed"]
    worker = await shared_fleet.worker(
        only_registered=True, imports=["tests.faults.registered"], allow=allow, max_workers=1
    )
    pool = shared_fleet.caller(codec="data")
    await serves(worker, pool, registered.echo)
    encoder = CallEncoder("data", "fuzz")
    calls = [
        b"".join(encoder.encode(Call(registered.echo.__wrapped__, (value,), {}), math.inf)[1])
        for value in (b"abc", [1, 2.5, "x"], {"a": (1, {2})}, datetime.now(UTC), Decimal(1), bytes(70_000))
    ]
    missing = Reference(os.urandom(16), 5_000_000, f"{shared_fleet.prefix}.bulk.=.x.owner")
    good = [*evil(keys, shared_fleet.prefix), *calls, *(refer(call, missing) for call in calls[:1])]
    flood = await flood_of(shared_fleet, 2, good)
    engine: Any = pool._home.engine  # type: ignore[union-attr]
    rooms = [f"{shared_fleet.prefix}.{room}.faults" for room in ("call", "call", "control", "peers")]
    for _ in range(TURNS):
        await flood.batch([*rooms, engine._inbox + os.urandom(16).hex()])
        await serves(worker, pool, registered.echo)
    await flood.client.close()
    reasons = Counter(name for name, _ in worker.events)
    of_calls = ("call.rejected", "call.not_allowed", "call.failed")
    assert all(reasons[name] > 100 for name in of_calls)
    assert (
        sum(reasons[name] for name in of_calls) > 0.95 * flood.sent[rooms[0]]
    )  # a changed value may do as well
    assert reasons["control.rejected"] > 1_000
    assert not keys.mark.exists()
    unharmed(worker)
