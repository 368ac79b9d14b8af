"""What workers show of themselves, and to whom."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from genro_nats import PoolOptions
from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.transport.address import Address
from genro_nats.transport.nats import Connection, Message
from genro_nats.worker.errors import LastErrors, error_type
from genro_nats.worker.presence import HEARTBEAT, Presence
from tests.faults import jobs
from tests.faults.conftest import ROOT, Fleet, Notes, Worker, until
from tests.worker_life import jobs as own_jobs

pytestmark = pytest.mark.anyio


class Observer:
    """Hears heartbeats, and asks."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection = connection
        self.prefix = prefix
        self.beats: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    async def start(self) -> None:
        await self.connection.subscribe(f"{self.prefix}.presence.beat.*", self._beat)
        await self.connection.subscribe("observer.answers", self._answer)
        await self.connection.flush()

    def _beat(self, message: Message) -> None:
        if message.data:
            self.beats.append(json.loads(message.data))
            assert message.subject == f"{self.prefix}.presence.beat.{self.beats[-1]['worker']}"

    def _answer(self, message: Message) -> None:
        if not message.status:
            self.answers.append(json.loads(message.data))

    async def ask(self, subject: str, count: int = 1, data: bytes = b"") -> list[dict[str, Any]]:
        self.answers = []
        await self.connection.publish(subject, data, "observer.answers")
        await until(lambda: len(self.answers) >= count)
        return self.answers

    async def now_of(self, worker: str) -> dict[str, Any]:
        found = await self.ask(f"{self.prefix}.presence.ask", 2)
        return next(facts for facts in found if facts["worker"] == worker)

    async def now(self) -> dict[str, Any]:
        (facts,) = await self.ask(f"{self.prefix}.presence.ask")
        return facts


@pytest.fixture
async def observer(shared_fleet: Fleet) -> AsyncIterator[Observer]:
    server = shared_fleet.server
    options = PoolOptions(url=(server.url,), user=server.user, password=server.password)
    connection = Connection(Address(options), "observer")
    await connection.start()
    found = Observer(connection, shared_fleet.prefix)
    await found.start()
    yield found
    await connection.aclose()


def documented(head: str) -> set[str]:
    """The names in a table of docs/wire.md."""
    text = (ROOT / "docs/wire.md").read_text().split("## Presence")[1]
    table = text[text.index(head) :].split("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    names = {name for line in lines for name in re.findall(r"`(\w+)`", line)}
    return names - {"starting", "serving", "draining", "gone", "P", "W", "at", "event", "text"}


def states(observer: Observer) -> list[str]:
    return list(dict.fromkeys(beat["state"] for beat in observer.beats))


async def test_a_worker_shows_its_way_from_start_to_end(
    shared_fleet: Fleet, observer: Observer, notes: Notes
) -> None:
    worker = await shared_fleet.worker()
    await until(lambda: states(observer) == ["starting", "serving"])
    running = asyncio.create_task(shared_fleet.caller().submit(jobs.work, notes.path, "a", 1.0))
    await notes.wait()
    facts = await observer.now()
    assert (facts["schema"], facts["pid"], facts["state"]) == (1, worker.process.pid, "serving")
    assert facts["host"] and facts["version"] and facts["python"] and facts["memory"] > 1_000_000
    (pool,) = facts["pools"]
    assert (pool["subject"], pool["slots"], pool["busy"], pool["queued"]) == ("faults", 2, 1, 0)
    assert sorted(child["busy"] for child in pool["children"]) == [0, 1]
    assert documented("| key | meaning |\n|---|---|\n| `schema`") == set(facts)
    described = documented("| key of a pool | meaning |")
    assert described == {*pool, *pool["children"][0], "held", "process"}
    assert "held" in pool["tasks"]
    assert all(child["memory"] > 1_000_000 and child["cpu"] >= 0 for child in pool["children"])
    worker.signal(signal.SIGTERM)
    # It says at once that it leaves, while a call is still running.
    await until(lambda: states(observer)[-1] == "draining")
    assert not running.done()
    await until(lambda: states(observer) == ["starting", "serving", "draining", "gone"])
    assert await running == "a"
    assert observer.beats[-1]["left"] == 0


async def test_it_beats_by_itself_and_at_once_when_a_child_is_lost(
    shared_fleet: Fleet, observer: Observer
) -> None:
    await shared_fleet.worker()
    await until(lambda: states(observer)[-1:] == ["serving"])
    seen = len(observer.beats)
    await until(lambda: len(observer.beats) > seen, HEARTBEAT + 10)
    with pytest.raises(Exception, match="code 5"):
        await shared_fleet.caller().submit(jobs.exit_now, 5)
    await until(lambda: any(e["event"] == "child.lost" for e in observer.beats[-1]["errors"]))
    # Those that come by themselves are five seconds apart.
    last, before = observer.beats[-1], observer.beats[-2]
    assert last["uptime"] - before["uptime"] < HEARTBEAT - 0.1


async def test_a_busy_child_is_seen_to_use_a_processor(
    shared_fleet: Fleet, observer: Observer, notes: Notes
) -> None:
    await shared_fleet.worker(max_workers=1)
    spinning = asyncio.create_task(shared_fleet.caller().submit(jobs.spin, notes.path))
    await notes.wait()
    shares: list[float] = []

    async def look() -> None:
        while not shares or shares[-1] < 0.2:  # others work on this machine, too
            shares.append((await observer.now())["pools"][0]["children"][0]["cpu"])
            await asyncio.sleep(0.3)

    await asyncio.wait_for(look(), 20)
    spinning.cancel()


async def test_what_went_wrong_is_shown_without_what_belongs_to_users(
    shared_fleet: Fleet, observer: Observer
) -> None:
    await shared_fleet.worker()
    for n in range(9):
        with pytest.raises(ValueError, match="hunter2"):
            await shared_fleet.caller().submit(own_jobs.reveal, f"hunter2 {n}")
    facts = await observer.now()
    assert len(facts["errors"]) == 5
    last = facts["errors"][-1]
    assert last["event"] == "call.failed"
    assert last["text"] == "function=tests.worker_life.jobs:reveal error=builtins:ValueError"
    assert facts["pools"][0]["failed"] == 9
    task = await shared_fleet.caller()(own_jobs.reveal).enqueue("hunter2")
    with pytest.raises(ValueError, match="hunter2"):
        await task.result(timeout=20)
    facts = await observer.now()
    assert facts["errors"][-1]["event"] == "task.failed"
    assert facts["errors"][-1]["text"] == "function=tests.worker_life.jobs:reveal type=builtins:ValueError"
    assert "hunter2" not in json.dumps([*observer.beats, facts])
    assert shared_fleet.server.password not in json.dumps([*observer.beats, facts])


@pytest.mark.parametrize(
    ("error", "type"),
    [
        ("builtins:ValueError: a: secret", "builtins:ValueError"),
        ("app.jobs:make.<locals>.Bad: x", "app.jobs:make.<locals>.Bad"),
        ("The child process 12 was killed: no", ""),
        ("secret", ""),
        (None, ""),
    ],
)
def test_of_a_task_s_error_its_type_is_shown(error: str | None, type: str) -> None:
    assert error_type(error) == type


def test_texts_of_exceptions_stay_in_the_log() -> None:
    errors = LastErrors()
    errors("child.failed", {"error": "no such host: secret@db", "failures": 3})
    errors("worker.ready", {"worker": "x"})
    errors("call.failed", {"function": "f" * 5000, "error": "E"})
    found = errors.facts()
    assert [error["event"] for error in found] == ["child.failed", "call.failed"]
    assert all(len(error["text"]) <= 200 for error in found)
    assert "secret" not in json.dumps(found)


async def test_what_is_shown_is_bounded() -> None:
    children = [{"pid": n, "busy": 0} for n in range(1024)]
    few = {"pools": [{"subject": "s", "children": children}]}
    shown = json.loads(Presence(None, "p", "w", lambda: few).shown())  # type: ignore[arg-type]
    assert len(shown["pools"][0]["children"]) == 64
    many = {"pools": [{"subject": f"s{n}", "children": children} for n in range(1000)]}
    data = Presence(None, "p", "w", lambda: many).shown()  # type: ignore[arg-type]
    assert len(data) <= 60_000
    assert json.loads(data)["cut"] is True


async def test_services_are_listed_as_nats_lists_them(shared_fleet: Fleet, observer: Observer) -> None:
    workers: list[Worker] = [await shared_fleet.worker() for _ in range(2)]
    pool = shared_fleet.caller()
    for _ in range(10):
        await pool.submit(own_jobs.hold, 0, 0.01)
    name = f"genro-nats-{shared_fleet.prefix}"
    pings = [ServicePing.from_dict(answer) for answer in await observer.ask(f"$SRV.PING.{name}", 2)]
    assert len({ping.id for ping in pings}) == 2
    assert {ping.metadata["pid"] for ping in pings} == {str(worker.process.pid) for worker in workers}
    assert {answer["type"] for answer in observer.answers} == {ServicePing.type}
    # Who asks for all services finds them among others.
    assert {ping.id for ping in pings} <= {answer["id"] for answer in await observer.ask("$SRV.PING", 2)}
    (info,) = [ServiceInfo.from_dict(a) for a in await observer.ask(f"$SRV.INFO.{name}.{pings[0].id}")]
    assert (info.name, info.type) == (name, observer.answers[0]["type"])
    (endpoint,) = info.endpoints
    assert (endpoint.subject, endpoint.queue_group) == (f"{shared_fleet.prefix}.call.faults", "workers")
    stats = [ServiceStats.from_dict(a) for a in await observer.ask(f"$SRV.STATS.{name}", 2)]
    assert {answer["type"] for answer in observer.answers} == {ServiceStats.type}
    assert sum(s.endpoints[0].num_requests for s in stats) == 10
    assert sum(s.endpoints[0].processing_time for s in stats) >= 10 * 10_000_000


async def test_a_worker_told_to_drain_leaves_when_it_is_done(
    shared_fleet: Fleet, observer: Observer, notes: Notes
) -> None:
    worker = await shared_fleet.worker()
    other = await shared_fleet.worker()
    running = [
        asyncio.create_task(shared_fleet.caller().submit(jobs.work, notes.path, n, 0.5)) for n in range(4)
    ]
    await notes.wait(3)
    facts = next(
        f
        for f in await observer.ask(f"{shared_fleet.prefix}.presence.ask", 2)
        if f["pid"] == worker.process.pid
    )
    inbox = f"{shared_fleet.prefix}.worker.{facts['worker']}.drain"
    # Told twice, it does not leave in a hurry; nonsense it does not obey.
    await observer.connection.publish(inbox, b"leave!")
    await observer.connection.publish(inbox, encode(Frame(FrameKind.BEAT)))
    for _ in range(2):
        assert (await observer.now_of(facts["worker"]))["state"] == "serving"
    for _ in range(2):
        await observer.ask(inbox, 1, encode(Frame(FrameKind.LEAVE)))
    assert await asyncio.gather(*running) == [0, 1, 2, 3]
    assert await worker.ended() == 0
    assert other.process.poll() is None
    assert notes.most() == 1
