"""100,000 changed messages to a worker with a key, on all subjects that it hears: each is counted by its reason.

What nobody sealed is never unpickled, so here bodies are changed too, and some would leave a mark on the disk.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nats
import pytest

from genro_nats import NatsExecutor, SignatureError
from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Keyring, new_key
from genro_nats.transport.guard import Guard
from genro_nats.transport.subjects import drain_inbox, presence_ask
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Notes, Worker, until
from tests.faults.durable import TaskFleet
from tests.fuzz.mutate import Pick, mutated, random_pick
from tests.fuzz.wire import Asker, Heard, Publisher, resident

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

COUNT = 100_000
BATCH = 12_500
GROWTH = 64 << 20  # bytes
SEED = int(os.environ.get("FUZZ_SEED", "20261121"))
STATUS = b"NATS/1.0 503\r\n\r\n"
OTHER = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 7\r\nGenro-Cron: x\r\n\r\n"


class Mark:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


class Range:
    """A keyed worker and a caller, all of whose valid messages were recorded."""

    def __init__(self, fleet: TaskFleet, directory: Path) -> None:
        self.fleet = fleet
        self.key = new_key("one")
        self.file = directory / "key"
        self.file.write_text(self.key)
        self.mark = directory / "mark"
        self.guard = Guard(Keyring.parse(self.key, "a test"), fleet.prefix)
        self.heard: list[Heard] = []
        self.worker: Worker
        self.pool: NatsExecutor

    async def begin(self, client: Any, notes: Notes) -> None:
        """Start both and record each sort of message once or more often."""
        self.worker = await self.fleet.worker(key_file=str(self.file), max_workers=2, spares=0)
        self.pool = pool = self.fleet.caller(key_file=str(self.file), timeout=20)
        await client.subscribe(f"{self.fleet.prefix}.>", cb=self._hear)
        await client.flush()
        assert await pool.submit(jobs.take_bytes, b"abc") == 3
        await pool.submit(jobs.take_bytes, bytes(1_200_000))
        await pool.submit(jobs.give_bytes, 1_200_000)
        assert [n async for n in pool(jobs.numbers).stream(notes.path, 200)] == list(range(200))
        running = asyncio.create_task(pool.submit(jobs.work, notes.path, "running", 30))
        await until(lambda: "running" in notes.lines())
        running.cancel()
        assert await self.serves(notes)
        await until(lambda: all(self.of(room) for room in ("control", "worker", "peers", "bulk", "call")), 20)

    async def _hear(self, message: Any) -> None:
        self.heard.append(Heard(message.subject, message.reply, message.data))

    def of(self, room: str) -> list[Heard]:
        """What was recorded in a room; of chunks their start, which is as wrong as any other part."""
        start = f"{self.fleet.prefix}.{room}."
        return [it._replace(data=it.data[:400]) for it in self.heard if it.subject.startswith(start)]

    async def serves(self, notes: Notes) -> bool:
        """A call and a task end as they should."""
        task = await self.pool.enqueue(task_jobs.work, notes.path, "task")
        assert await task.result(timeout=30) == "task"
        assert await asyncio.wait_for(self.pool.submit(jobs.take_bytes, b"abcd"), 20) == 4
        return True

    def forged(self) -> list[bytes]:
        """Calls and control that would leave a mark or end something, were they believed."""
        body = pickle.dumps(((Mark(self.mark),), {}), 5)
        call = encode(Frame(FrameKind.CALL, os.urandom(16), b"tests.faults.jobs:take_bytes", body=body))
        stranger = Keyring.parse(new_key("one"), "a stranger's")
        leave = encode(Frame(FrameKind.LEAVE))
        real = self.of("call")[0].data[:SEAL_SIZE]
        unknown = MAGIC + b"other\0\0\0" + bytes(40)
        return [
            made
            for plain in (call, leave, encode(Frame(FrameKind.CANCEL, os.urandom(16))))
            for made in (
                plain,
                stranger.seal(b"", [plain], time.time_ns()) + plain,
                real + plain,
                unknown + plain,
            )
        ]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENRO_NATS_KEY", raising=False)


@pytest.fixture
async def keyed(shared_tasks: TaskFleet, tmp_path: Path, notes: Notes) -> Range:
    server = shared_tasks.server
    client = await nats.connect(server.url, user=server.user, password=server.password)
    found = Range(shared_tasks, tmp_path)
    await found.begin(client, notes)
    await client.close()
    return found


def reason(message: Heard, known: set[tuple[str, str, bytes]], prefix: str) -> str:
    """Why it has to be refused: told from its bytes, in another way than the worker does."""
    if message.headers == STATUS:
        return "status"
    if len(message.data) < SEAL_SIZE or not message.data.startswith(MAGIC):
        return "unsigned"
    if message.data[4:12] != b"one\0\0\0\0\0":
        return "unknown key"
    return "replayed" if _bound(message, prefix) in known else "wrong signature"


async def test_each_of_100_000_is_counted_by_its_reason(keyed: Range, notes: Notes) -> None:
    fleet, prefix = keyed.fleet, keyed.fleet.prefix
    pick, rng = random_pick(random.Random(SEED)), random.Random(SEED + 1)
    server = fleet.server
    async with Asker(server, prefix, keyed.guard) as asker:
        before = await asker.facts()
        assert before["distrusted"] == {}
        targets = targets_of(keyed, before["worker"])
        known = known_of(keyed)
        sent = Counter[str]()
        awaited: set[str] = set()
        answered: set[str] = set()
        client = await nats.connect(server.url, user=server.user, password=server.password)

        async def hear(message: Any) -> None:
            answered.add(message.subject)

        await client.subscribe(f"{prefix}.reply.=.fuzz.*", cb=hear)
        await client.flush()
        begin = time.monotonic()
        with Publisher(server) as publisher:
            for _ in range(COUNT // BATCH):
                batch = [one(pick, rng, targets, prefix) for _ in range(BATCH)]
                for message in batch:
                    why = reason(message, known, prefix)
                    sent[why] += 1
                    if why != "replayed" and ".fuzz." in message.reply and ".call." in message.subject:
                        awaited.add(message.reply)
                await asyncio.to_thread(publisher.send, batch)
                found = await asker.counted(sent.total())
                assert found == sent, f"FUZZ_SEED={SEED}"
        took = time.monotonic() - begin
        await until(lambda: answered >= awaited, 30)
        assert answered == awaited, f"FUZZ_SEED={SEED}"
        after = await asker.facts()
        print(f"{sent.total():,} messages in {took:.1f} s: {dict(sent)}; {len(answered):,} answers")
        await client.close()
        assert sent.total() == COUNT and min(sent.values()) > 50 and len(sent) == 5
        assert await keyed.serves(notes)
        same(before, after)
    assert not keyed.mark.exists()
    quiet(keyed.worker)


def same_processes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """None of them had to be replaced."""
    assert after["pid"] == before["pid"]
    for old, new in zip(before["pools"], after["pools"], strict=True):
        assert {child["pid"] for child in new["children"]} == {child["pid"] for child in old["children"]}


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The same processes, no larger than before, which were given no call."""
    same_processes(before, after)
    for old, new in zip(before["pools"], after["pools"], strict=True):
        assert new["calls"] == old["calls"]
    assert resident(after) - resident(before) < GROWTH


def quiet(worker: Worker) -> None:
    """Nothing came up to where nobody expected it."""
    assert worker.count("child.lost") == worker.count("server.down") == 0
    assert worker.process.poll() is None
    log = worker.log.with_suffix(".err").read_text()
    assert "Traceback" not in log, log[-3000:]


def targets_of(keyed: Range, worker: str) -> list[list[Heard]]:
    """By subject that the worker hears: what was said there, and what is to be changed for it."""
    prefix = keyed.fleet.prefix
    rooms = [keyed.of("call"), keyed.of("control"), keyed.of("worker")]
    peers = keyed.of("peers")
    address = next(it.reply for it in peers if it.reply)
    group = [it for it in peers if it.subject == f"{prefix}.peers.faults"]
    owned = [it for it in keyed.of("bulk") if it.subject.endswith(".owner")]
    served = {it.subject for it in owned if it.data[SEAL_SIZE + 3] == FrameKind.PULL}
    # Sealed for another subject, so that none of them is believed even if its changes undo each other.
    leave, ask, inbox = encode(Frame(FrameKind.LEAVE)), b"", f"{prefix}.reply.=.fuzz.0"
    rooms += [group, [it._replace(subject=address) for it in group]]
    for subject, data in ((drain_inbox(prefix, worker), leave), (presence_ask(prefix), ask)):
        rooms.append([Heard(subject, inbox, keyed.guard.seal("elsewhere", [data], "") + data)])
    # Of the two owners the worker's is the one that its results are pulled from.
    rooms += [
        [it for it in owned if it.subject == subject] for subject in served if _is_workers(keyed, subject)
    ]
    assert all(rooms), [len(room) for room in rooms]
    evil = keyed.forged()
    return [[*room, *(Heard(room[0].subject, room[0].reply, data) for data in evil)] for room in rooms]


def _is_workers(keyed: Range, subject: str) -> bool:
    engine: Any = keyed.pool._home.engine  # type: ignore[union-attr]
    return bool(subject != engine._transfer.line.owner_subject)


def known_of(keyed: Range) -> set[tuple[str, str, bytes]]:
    return {_bound(it, keyed.fleet.prefix) for it in keyed.heard}


def _bound(message: Heard, prefix: str) -> tuple[str, str, bytes]:
    """A message with what it was meant for; those about payloads name that themselves."""
    if message.subject.startswith(f"{prefix}.bulk."):
        return "", "", message.data
    return message.subject, message.reply, message.data


_number = iter(range(1 << 40))


def one(pick: Pick, rng: random.Random, targets: list[list[Heard]], prefix: str) -> Heard:
    """One message: changed, or whole and somewhere else, or as it was once more."""
    room = targets[pick(0, len(targets) - 1)] if pick(0, 2) else targets[0]
    base = room[pick(0, len(room) - 1)]
    data, reply, headers = base.data, base.reply, b""
    way = pick(0, 19)
    if way > 3:
        data = mutated(pick, [it.data for it in room], SEAL_SIZE if pick(0, 1) else 0)
    elif way == 1:
        other = targets[pick(0, len(targets) - 1)]
        data = other[pick(0, len(other) - 1)].data
    if ".call." in base.subject and (way > 3 or way == 2):
        reply = f"{prefix}.reply.=.fuzz.{next(_number)}"
    if way == 3:
        # A bare status is the server's word where that has one: it is not counted there.
        bare = base.subject.split(".")[1] in ("call", "control", "presence") and pick(0, 1)
        headers, data = STATUS, b"" if bare else data or b"x"
    elif way == 4:
        headers = OTHER
    return Heard(base.subject, reply, data, headers)


async def test_what_comes_to_a_caller(keyed: Range, notes: Notes) -> None:
    """Changed answers to calls that are over, and where JetStream answers: counted, and calls go on meanwhile."""
    prefix, pick = keyed.fleet.prefix, random_pick(random.Random(SEED))
    engine: Any = keyed.pool._home.engine  # type: ignore[union-attr]
    inbox = engine._inbox
    corpus = [it for it in keyed.of("reply") if it.subject.startswith(inbox)]
    chunks = [it for it in keyed.of("bulk") if it.subject.startswith(engine._transfer.line._inbox)]
    assert corpus and chunks
    known, sent = known_of(keyed), Counter(engine.facts()["distrusted"])
    with Publisher(keyed.fleet.server) as publisher:
        for _ in range(4):
            batch = []
            for number in range(2500):
                room = chunks if number % 4 == 0 else corpus
                base = room[pick(0, len(room) - 1)]
                data = mutated(pick, [it.data for it in room], SEAL_SIZE if pick(0, 1) else 0)
                if room is corpus and number % 10 == 1:
                    base = base._replace(subject=inbox + "no-hex")
                batch.append(base._replace(data=data))
            sent += Counter(reason(message, known, prefix) for message in batch)
            total = sent.total()
            call = asyncio.create_task(keyed.pool.submit(jobs.take_bytes, b"abc"))
            await asyncio.to_thread(publisher.send, batch)
            assert await asyncio.wait_for(call, 20) == 3
            await until(lambda: sum(engine.facts()["distrusted"].values()) >= total, 20)  # noqa: B023
            assert Counter(engine.facts()["distrusted"]) == sent, f"FUZZ_SEED={SEED}"
    assert await keyed.serves(notes)
    quiet(keyed.worker)


async def test_what_is_stored_in_streams(keyed: Range, notes: Notes) -> None:
    """Changed tasks are buried and never run, changed requests change nothing; who reads the rest is told by name."""
    fleet, prefix, pool = keyed.fleet, keyed.fleet.prefix, keyed.pool
    pick, subjects = random_pick(random.Random(SEED)), keyed.fleet.subjects
    done = await pool.enqueue(task_jobs.work, notes.path, "task")
    assert await done.result(timeout=20) == "task"
    lines = notes.lines()
    tasks = keyed.of("task")
    stored = {room: keyed.of(room) for room in ("state", "task", "index")}
    evil = keyed.forged()
    batch: list[Heard] = []
    for number in range(150):
        data = mutated(pick, [*(it.data for it in tasks), *evil], SEAL_SIZE)
        batch.append(Heard(subjects.task("normal", None, os.urandom(16).hex()), "", data))
        id = os.urandom(16).hex()
        for room in ("ask", "note", "dead", "blob", "state", "index", "told", "schedule"):
            what = {"ask": "cancel", "note": "checkpoint", "index": "failed"}.get(room, "x")
            where = {
                "dead": subjects.of("dead", id),
                "blob": subjects.of("blob", "=", id, str(number)),
                "state": subjects.state(id),
                "told": subjects.told(id),
                "schedule": subjects.of("schedule", id),
            }.get(room) or subjects.about(room, what, id)
            batch.append(
                Heard(where, "", mutated(pick, [it.data for it in stored.get(room) or tasks], SEAL_SIZE))
            )
    batch += [it._replace(subject=subjects.about("ask", "cancel", done.id)) for it in batch[:50]]
    async with Asker(fleet.server, prefix, keyed.guard) as asker:
        before = await asker.facts()
        with Publisher(fleet.server) as publisher:
            await asyncio.to_thread(publisher.send, batch)
        # A task is heard once, a request by two: who holds the task, and who sees to one that nobody holds.
        asked = sum(".ask." in it.subject for it in batch)
        found = await asker.counted(150 + 2 * asked)
        await until(lambda: keyed.worker.count("task.unreadable") == 150, 30)
        assert set(found) <= {"unsigned", "unknown key", "wrong signature"}
        assert found.total() == 150 + 2 * asked, f"FUZZ_SEED={SEED}"
        assert await keyed.serves(notes)
        letters = await pool.dead.list()  # the forged ones, which are older, don't count
        assert [letter.reason for letter in letters] == ["signature"] * 100
        with pytest.raises(SignatureError):
            await pool.dead.replay(letters[0].id)
        assert (await done.status()).state == "completed"
        assert [it async for it in pool.tasks(state="failed")] != []
        assert [it async for it in pool.schedules()] == []
        same_processes(before, await asker.facts())
    assert notes.lines() == [*lines, "task"]
    assert not keyed.mark.exists()
    quiet(keyed.worker)
