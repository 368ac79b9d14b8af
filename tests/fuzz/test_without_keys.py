"""Workers without a key: what is changed is refused or answered by name, one answer for each message.

Where pickles are taken nobody changes bodies here: opening one is running what it says, and whoever may publish calls
may do that. A worker of registered functions opens none, so there everything is changed.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats
import pytest

from genro_nats.codec import data
from genro_nats.codec.by_value import FunctionBlob, inline_field
from genro_nats.codec.frame import HEADER_SIZE, Flag, Frame, FrameKind, decode, decode_all, encode
from genro_nats.codec.reference import Reference, refer
from genro_nats.errors import DecodeError
from genro_nats.transport.guard import Guard
from tests.faults import jobs, registered
from tests.faults.conftest import Fleet, Notes, Worker, until
from tests.fuzz.mutate import FRAME_FIELDS, Pick, extremes, mutated, random_pick
from tests.fuzz.test_storm import SEED, Mark, quiet
from tests.fuzz.wire import Asker, Heard, Publisher, resident

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]

COUNT = 8_000
BATCH = 2_000
GROWTH = 64 << 20
STRICT: dict[str, Any] = {"only_registered": True, "imports": [registered.__name__]}
FIELDS = [
    field for field in FRAME_FIELDS if field != (16, 8)
]  # deadlines of a moment end children, as they should


def strict_corpus(prefix: str, mark: Path) -> list[bytes]:
    """Calls of data, and what a worker of registered functions must not open."""
    evil = pickle.dumps(((Mark(mark),), {}), 5)
    name = b"tests.faults.registered:echo"
    body, _ = data.dumps_call(([1, (2, "three")],), {})
    touch, _ = data.dumps_call((f"touch {mark}",), {})
    given: dict[str, Any] = {"body": body, "flags": Flag.DATA}
    whole = encode(Frame(FrameKind.CALL, bytes(16), name, **given))
    return [
        whole,
        encode(Frame(FrameKind.CALL, bytes(16), name, b'{"trace": "00"}', **given)),
        encode(
            Frame(
                FrameKind.CALL, bytes(16), b"sums.add", body=data.dumps_call((1, 2), {})[0], flags=Flag.DATA
            )
        ),
        encode(Frame(FrameKind.CALL, bytes(16), name, body=evil)),
        encode(Frame(FrameKind.CALL, bytes(16), name, body=evil, flags=Flag.DATA)),
        encode(
            Frame(FrameKind.CALL, bytes(16), name, body=body, buffers=[inline_field(evil)], flags=4096 | 2)
        ),
        encode(Frame(FrameKind.CALL, bytes(16), name, FunctionBlob(evil, []).field, body, flags=4096 | 8192)),
        refer(whole, Reference(bytes(16), 5000, f"{prefix}.control.faults")),
        encode(
            Frame(FrameKind.CALL, bytes(16), name, body=b"\x01\0\0\0" + bytes(8) + evil, flags=4096 | 512)
        ),
        encode(
            Frame(
                FrameKind.CALL,
                bytes(16),
                b"os:system",
                body=touch,
                flags=Flag.DATA,
            )
        ),
    ]


def header_changed(pick: Pick, whole: bytes) -> bytes:
    """Another header before the same name, meta and body; or an end cut off, or something behind it."""
    found = whole
    for _ in range(pick(1, 3)):
        offset, size = FIELDS[pick(0, len(FIELDS) - 1)]
        worst = extremes(size)
        flipped = bytes(
            byte ^ (1 << pick(0, 7) if pick(0, 1) else 0) for byte in found[offset : offset + size]
        )
        changed = flipped if pick(0, 1) else worst[pick(0, len(worst) - 1)]
        found = found[:offset] + changed + found[offset + size :]
    return [whole, found[: pick(0, len(found))], found + b"x" * pick(1, 60), found][min(3, pick(0, 9))]


def body_changed(pick: Pick, named: Sequence[bytes]) -> bytes:
    """Another body behind the same header, so that a child gets it."""
    frame, _ = decode(named[pick(0, len(named) - 1)])
    bodies = [bytes(decode(it)[0].body) for it in named]
    frame.body = mutated(pick, [bytes(frame.body), *bodies[:3]], 0, [(0, 1), (1, 1), (2, 4)])
    return encode(frame)


class Inbox:
    """Hears the answers; several may come as one message, and the id of each is the end of its call's reply subject."""

    def __init__(self) -> None:
        self.outcomes: set[str] = set()

    async def hear(self, message: Any) -> None:
        for frame in decode_all(message.data):
            if frame.kind in (FrameKind.REPLY, FrameKind.ERROR, FrameKind.REFUSED):
                self.outcomes.add(f"{message.subject.rpartition('.')[0]}.{frame.id.hex()}")


@pytest.mark.parametrize("kind", ["pickles", "registered"])
async def test_each_call_is_answered(shared_fleet: Fleet, tmp_path: Path, notes: Notes, kind: str) -> None:
    strict = kind == "registered"
    worker = await shared_fleet.worker(max_workers=2, spares=0, **(STRICT if strict else {}))
    pool = shared_fleet.caller(timeout=20, **({"codec": "data"} if strict else {}))
    prefix, server, mark = shared_fleet.prefix, shared_fleet.server, tmp_path / "mark"
    pick, rng = random_pick(random.Random(SEED)), random.Random(SEED + 1)
    whole = encode(Frame(FrameKind.CALL, bytes(16), b"tests.faults.jobs:pid", body=pickle.dumps(((), {}), 5)))
    corpus = strict_corpus(prefix, mark) if strict else [whole]
    client, inbox = await nats.connect(server.url, user=server.user, password=server.password), Inbox()
    await client.subscribe(f"{prefix}.reply.=.fuzz.*", cb=inbox.hear)
    await client.flush()
    async with Asker(server, prefix, Guard()) as asker:
        before = await asker.facts()
        sent: set[str] = set()
        with Publisher(server) as publisher:
            for _ in range(COUNT // BATCH):
                batch = []
                for _ in range(BATCH):
                    id = rng.randbytes(16)
                    named = [it[:32] + id + it[HEADER_SIZE:] for it in corpus]
                    if strict:
                        changed = body_changed(pick, named) if pick(0, 1) else mutated(pick, named, 0, FIELDS)
                    else:
                        changed = header_changed(pick, named[0])
                    if changed[16:24] != named[0][16:24]:
                        changed = changed[:16] + named[0][16:24] + changed[24:]
                    batch.append(Heard(f"{prefix}.call.faults", f"{prefix}.reply.=.fuzz.{id.hex()}", changed))
                await asyncio.to_thread(publisher.send, batch)
                sent |= {it.reply for it in batch}
                await until(lambda: inbox.outcomes >= sent, 60)  # noqa: B023
        assert inbox.outcomes == sent, f"FUZZ_SEED={SEED}"
        after = await asker.facts()
        await accounted(before, after, worker)
        if strict:
            await control(asker, Publisher(server), prefix, pick)
    await client.close()
    if strict:
        assert await pool.submit(registered.echo, [1]) == [1]
    else:
        assert await pool.submit(jobs.take_bytes, b"abc") == 3
    assert not mark.exists()
    quiet(worker)


async def accounted(before: dict[str, Any], after: dict[str, Any], worker: Worker) -> None:
    """Each was rejected by the parent, run or refused; the same processes, no larger."""
    (old,), (new,) = before["pools"], after["pools"]
    counts = {key: new[key] - old[key] for key in ("calls", "completed", "failed", "rejected", "refused")}
    print(counts, new.get("not_allowed"))
    assert counts["rejected"] + counts["calls"] == COUNT, f"FUZZ_SEED={SEED}"
    assert counts["calls"] == counts["completed"] + counts["failed"] + counts["refused"]
    assert counts["rejected"] > COUNT // 3 and counts["completed"] > 10
    assert {child["pid"] for child in new["children"]} == {child["pid"] for child in old["children"]}
    assert resident(after) - resident(before) < GROWTH


async def control(asker: Asker, publisher: Publisher, prefix: str, pick: Pick) -> None:
    """What is no frame is counted, whatever else is said of unknown calls means nothing."""
    kinds = [
        FrameKind.CANCEL,
        FrameKind.CREDIT,
        FrameKind.ACK,
        FrameKind.QUERY,
        FrameKind.FUNCTION,
        FrameKind.GONE,
    ]
    corpus = [encode(Frame(kind, os.urandom(16), b"ab" * 32, body=bytes(48), seconds=9.0)) for kind in kinds]
    batch = [Heard(f"{prefix}.control.faults", "", mutated(pick, corpus)) for _ in range(COUNT)]
    bad = sum(not _obeyed(it.data) for it in batch)
    before = (await asker.facts())["pools"][0]["rejected"]
    with publisher:
        await asyncio.to_thread(publisher.send, batch)
    assert (await asker.facts())["pools"][0]["rejected"] - before == bad, f"FUZZ_SEED={SEED}"
    assert COUNT > bad > COUNT // 3


def _obeyed(body: bytes) -> bool:
    try:
        return all(it.kind != FrameKind.CREDIT or 0 < it.seconds <= 1_000_000 for it in decode_all(body))
    except DecodeError:
        return False
