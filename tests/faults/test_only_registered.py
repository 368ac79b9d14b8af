"""Names-only mode: a worker that runs registered functions only, and callers that take data only.

Every way on which something could come from the wire is tried with a payload that
leaves a mark on the disk when it is unpickled, imported or run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from msgspec import msgpack

from genro_nats import (
    CodecError,
    DecodeError,
    NatsExecutor,
    NotAllowedError,
    ProcessExecutor,
    ProgressUpdate,
    RemoteError,
    TaskFailedError,
)
from genro_nats.codec import data
from genro_nats.codec.codecs import DATA, PICKLE, Codecs
from genro_nats.codec.frame import Flag, Frame, FrameKind, decode, encode
from genro_nats.errors import ConfigurationError
from genro_nats.executor.process_engine import run_named
from genro_nats.transport.publisher import Publisher
from tests.faults import jobs, registered
from tests.faults.conftest import Fleet, Notes, Worker, until
from tests.faults.durable import TaskFleet

pytestmark = pytest.mark.anyio
HERE = registered.__name__
STRICT: dict[str, Any] = {
    "max_workers": 1,
    "only_registered": True,
    "imports": [HERE],
    "allow": [f"{HERE}:listed"],
}


class Trap:
    """Touches a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def trap(mark: Path) -> bytes:
    made = pickle.dumps(Trap(mark), 5)
    pickle.loads(made)
    assert mark.exists(), "the trap is none"
    mark.unlink()
    return made


def reasons(worker: Worker) -> Counter[str]:
    return Counter(facts["reason"] for name, facts in worker.events if name == "call.not_allowed")


# -- what works ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["process", "threads", "async-process"])
async def test_what_is_registered_runs(shared_fleet: Fleet, kind: str) -> None:
    given = {**STRICT, "initializer": f"{HERE}:begin", "initargs": ["hello"]}
    if kind == "threads":
        given["threads"] = 2
    else:
        given["kind"] = kind
    worker = await shared_fleet.worker(**given)
    pool = shared_fleet.caller(codec="data", carry=(registered.tenant,), timeout=15)
    order = registered.Order(7, ["tea"])
    registered.tenant.set("ada")
    assert await pool.submit(registered.total, order) == registered.Order(7, ["tea", "ada"])
    assert await pool.submit(registered.listed, 4) == 8
    assert await pool.submit(registered.add, (1,), b=(2,)) == (1, 2)
    assert await pool.submit(registered.begun) == ["hello"]
    seen: list[ProgressUpdate] = []
    stream = pool(registered.steps).options(on_progress=seen.append).stream(3)
    assert [item async for item in stream] == [0, 1, 2]
    await until(lambda: seen and seen[-1] == ProgressUpdate(1.0, "", {"step": (2,)}))
    with pytest.raises(registered.OrderError) as failed:
        await pool.submit(registered.total, registered.Order(8, []))
    assert failed.value.args == ("no lines", 8)
    assert not reasons(worker)


async def test_tasks(shared_tasks: TaskFleet, tmp_path: Path) -> None:
    await shared_tasks.worker(**STRICT)
    pool = shared_tasks.caller(codec="data")
    task = await pool(registered.resumed).options(retries=1, backoff=0.05).enqueue(str(tmp_path / "n"))
    assert await task.result(timeout=15) == {"at": (1, 2)}
    by_name = await pool(name="sums.plus")(registered.add).enqueue(2)
    assert await by_name.result(timeout=15) == 3
    lost = await pool.enqueue(registered.total, registered.Order(9, []))
    with pytest.raises(registered.OrderError):
        await lost.result(timeout=15)
    again = await pool.dead.replay(lost.id)
    with pytest.raises(registered.OrderError):
        await again.result(timeout=15)


async def test_a_local_pool_may_use_the_codec_too(tmp_path: Path) -> None:
    async with ProcessExecutor("local", max_workers=1, codec="data") as pool:
        assert await pool.submit(registered.add, (1,), b=(2,)) == (1, 2)
        with pytest.raises(
            CodecError, match=r"argument 'a' of .*add can't be sent: .*Thread.*codec='pickle'"
        ):
            await pool.submit(registered.add, __import__("threading").Thread())
        for by_value in (
            pool(lambda a: a),
            pool(by="value")(registered.add),
        ):  # that was called by name before
            with pytest.raises(CodecError, match=r"codec='data' sends no function"):
                await by_value(1)
        with pytest.raises(CodecError, match=r'codec="data" stores no function\.$'):
            await pool(lambda a: a).enqueue(1)
        with pytest.raises(CodecError, match=r"result of .*give_unpicklable.* can't be sent as data"):
            await pool.submit(jobs.give_unpicklable, "lock")
        task = await pool(registered.resumed).options(retries=1, backoff=0.01).enqueue(str(tmp_path / "n"))
        assert await task.result(timeout=15) == {"at": (1, 2)}


async def test_a_worker_that_takes_anything_takes_data_too(shared_fleet: Fleet) -> None:
    await shared_fleet.worker(max_workers=1)
    both = [shared_fleet.caller(codec="data", timeout=15), shared_fleet.caller(timeout=15)]
    for pool in both:
        assert await pool.submit(registered.echo, (1, {2})) == (1, {2})


async def test_a_listed_name_that_is_not_there_is_told_at_the_start(shared_fleet: Fleet) -> None:
    with pytest.raises(AssertionError, match=r"allow lists .*:missing"):
        await shared_fleet.worker(**{**STRICT, "allow": [f"{HERE}:missing"]})


# -- what is refused, and how ---------------------------------------------------


class Stranger:
    """Sends frames as no pool of ours would."""

    def __init__(self, client: Any, fleet: Fleet) -> None:
        self.client = client
        self.fleet = fleet

    async def ask(self, flags: int, name: str, body: bytes, buffers: Any = (), meta: bytes = b"") -> Any:
        """The value or exception in the answer; it must be of the codec of the call."""
        id = os.urandom(16)
        reply = f"{self.fleet.prefix}.reply.stranger.{id.hex()}"
        subscription = await self.client.subscribe(reply)
        call = Frame(FrameKind.CALL, id, name.encode(), meta, body, buffers, flags)
        await self.client.publish(f"{self.fleet.prefix}.call.faults", encode(call), reply=reply)
        message = await subscription.next_msg(10)
        await subscription.unsubscribe()
        frame, _ = decode(message.data)
        assert frame.flags & Flag.DATA == flags & Flag.DATA
        if frame.kind == FrameKind.ERROR:
            return Codecs().load_error(frame.flags, frame.body)
        return Codecs().loads(frame.flags, frame.body, frame.buffers)


@contextlib.asynccontextmanager
async def stranger_of(fleet: Fleet) -> AsyncIterator[Stranger]:
    server = fleet.server
    client = await nats.connect(server.url, user=server.user, password=server.password)
    yield Stranger(client, fleet)
    await client.close()


def packed(*args: Any, carried: Any = None, **kwargs: Any) -> bytes:
    return data.dumps_whole([list(args), kwargs, *([] if carried is None else [carried])])


@pytest.mark.parametrize("kind", ["process", "threads", "async-process"])
async def test_nothing_that_comes_is_unpickled_imported_or_run(
    shared_fleet: Fleet, kind: str, mark: Path, trap: bytes, tmp_path: Path
) -> None:
    (tmp_path / "trapdoor.py").write_text(
        f"open({str(mark)!r}, 'w')\nfrom contextvars import ContextVar\nvar = ContextVar('v')\n"
        "class T: __genro_data__ = 'T'\ndef f(): pass\n"
    )
    given = {"threads": 2} if kind == "threads" else {"kind": kind}
    options = shared_fleet.options(**STRICT, **given)
    worker = Worker(shared_fleet.server, tmp_path / "own.log", tmp_path, **options)
    shared_fleet.workers.append(worker)
    await worker.ready()
    echo, touch = f"{HERE}:echo", f"touch {mark}"
    ext = msgpack.Ext
    foreign_type = msgpack.encode([ext(0, b""), [[[ext(16, b""), "trapdoor:T", {}]], {}]])
    cases: list[tuple[str, Any, str, tuple[Any, ...]]] = [
        ("pickle", NotAllowedError, "pickle", (0, echo, trap)),
        ("by_value", NotAllowedError, "pickle", (Flag.BY_VALUE, echo, trap, [trap])),
        ("by_digest", NotAllowedError, "pickle", (8192, echo, trap)),
        ("a pickle said to be data", DecodeError, "", (Flag.DATA, echo, trap)),
        ("function", NotAllowedError, "by_value", (Flag.DATA | Flag.BY_VALUE, echo, packed(1), [trap])),
        ("digest", NotAllowedError, "by_digest", (Flag.DATA | 8192, echo, packed(1), [trap])),
        ("checkpoint", DecodeError, "", (Flag.DATA | Flag.TASK | Flag.CHECKPOINT, echo, packed(1), [trap])),
        ("pickled task", NotAllowedError, "pickle", (Flag.TASK | Flag.CHECKPOINT, echo, trap, [trap])),
        ("buffer", None, "", (Flag.DATA, echo, packed(trap), [trap])),
        ("system", NotAllowedError, "function", (Flag.DATA, "os:system", packed(touch))),
        (
            "exec",
            NotAllowedError,
            "function",
            (Flag.DATA, "builtins:exec", packed(f"open({str(mark)!r},'w')")),
        ),
        ("helper", NotAllowedError, "function", (Flag.DATA, f"{HERE}:unlisted", packed(str(mark)))),
        ("init", NotAllowedError, "function", (Flag.DATA, f"{HERE}:begin", packed("x"))),
        ("run_named", NotAllowedError, "function", (Flag.DATA, _RUN_NAMED, packed("os:system", touch))),
        ("within", NotAllowedError, "function", (Flag.DATA, f"{HERE}:pool.submit", packed())),
        ("import", NotAllowedError, "function", (Flag.DATA, "trapdoor:f", packed())),
        ("no name", NotAllowedError, "function", (Flag.DATA, "", packed())),
        (
            "at",
            NotAllowedError,
            "function",
            (Flag.DATA | Flag.TASK, "x:y", packed(), (), b'{"at": "trapdoor:f"}'),
        ),
        (
            "context",
            NotAllowedError,
            "context",
            (Flag.DATA, echo, packed(1, carried=[[f"{HERE}:secret", "x"]])),
        ),
        ("ours", NotAllowedError, "context", (Flag.DATA, echo, packed(1, carried=[[_OURS, 5]]))),
        (
            "import var",
            NotAllowedError,
            "context",
            (Flag.DATA, echo, packed(1, carried=[["trapdoor:var", 5]])),
        ),
        (
            "no variable",
            NotAllowedError,
            "context",
            (Flag.DATA, echo, packed(1, carried=[[f"{HERE}:add", 5]])),
        ),
        ("odd carried", DecodeError, "", (Flag.DATA, echo, packed(1, carried={"a": 1}))),
        ("type", NotAllowedError, "type", (Flag.DATA, echo, foreign_type)),
        ("no arguments", DecodeError, "", (Flag.DATA, echo, data.dumps_whole(5))),
        ("texts", DecodeError, "", (Flag.DATA, echo, data.dumps_whole(["ab", {}]))),
    ]
    expected: Counter[str] = Counter()
    async with stranger_of(shared_fleet) as stranger:
        for what, error, reason, call in cases:
            outcome = await stranger.ask(*call)
            if error is None:
                assert outcome == trap, what
                continue
            assert isinstance(outcome, error), (what, outcome)
            assert getattr(outcome, "reason", "") == reason, (what, outcome)
            expected.update([reason] if reason else [])
            assert not mark.exists(), what
            if reason:
                assert any(word in str(outcome) for word in ("--allow", "codec='data'", "data_type")), outcome
    await until(lambda: reasons(worker) == expected)
    pool = shared_fleet.caller(codec="data", timeout=10)
    assert await pool.submit(registered.echo, (1,)) == (1,)
    assert worker.count("child.lost") == 0
    assert not mark.exists()
    subprocess.run([sys.executable, "-c", "import trapdoor"], cwd=tmp_path, check=True, timeout=30)
    assert mark.exists(), "the trapdoor is none"


_RUN_NAMED = f"{run_named.__module__}:{run_named.__qualname__}"
_OURS = "genro_nats.message:running_call"


async def test_large_calls_are_refused_before_they_are_pulled(shared_fleet: Fleet, mark: Path) -> None:
    worker = await shared_fleet.worker(**STRICT)
    pool = shared_fleet.caller(timeout=15)
    with pytest.raises(NotAllowedError, match="codec='data'"):
        await pool.submit(registered.echo, [bytes(4 << 20), Trap(mark)])
    assert reasons(worker) == {"pickle": 1}
    assert worker.count("call.rejected") == 1, "it was left to a child to refuse it"
    large = [bytes(3 << 20), (1,)]
    assert await shared_fleet.caller(codec="data", timeout=15).submit(registered.echo, large) == large
    assert not mark.exists()


async def test_tasks_that_are_not_allowed_fail_by_name(
    shared_tasks: TaskFleet, mark: Path, trap: bytes
) -> None:
    worker = await shared_tasks.worker(**STRICT)
    pickled = await shared_tasks.caller().enqueue(registered.echo, Trap(mark))
    with pytest.raises(TaskFailedError, match="takes data only"):
        await pickled.result(timeout=15)
    pool = shared_tasks.caller(codec="data")
    unknown = await pool.enqueue(registered.unlisted, str(mark))
    with pytest.raises(NotAllowedError, match=r"unlisted is not registered"):
        await unknown.result(timeout=15)
    assert not mark.exists()
    assert reasons(worker) == {"pickle": 1, "function": 1}
    letters = {letter.id for letter in await pool.dead.list()}
    assert letters == {pickled.id, unknown.id}


async def test_what_is_stored_of_a_task_that_is_refused_is_not_read(shared_tasks: TaskFleet) -> None:
    """Its header says enough: reading would fail here, for its arguments are gone."""
    async with shared_tasks.ledger() as ledger:
        pickled = shared_tasks.caller()
        task = await pickled(registered.echo).options(retries=1, backoff=0.01).enqueue(bytes(3_000_000))
        await ledger.js.api(f"STREAM.PURGE.{ledger.subjects.blobs_stream}")
        worker = await shared_tasks.worker(**STRICT)
        with pytest.raises(TaskFailedError, match="takes data only"):
            await task.result(timeout=15)
        assert set(reasons(worker)) == {"pickle"}


async def test_a_checkpoint_put_there_by_somebody_else(
    shared_tasks: TaskFleet, mark: Path, trap: bytes, tmp_path: Path
) -> None:
    async with shared_tasks.ledger() as ledger:
        pool = shared_tasks.caller(codec="data")
        await shared_tasks.worker(**STRICT)
        path = tmp_path / "attempts"
        task = await pool(registered.resumed).options(retries=1, backoff=3.0).enqueue(str(path))
        await until(path.exists)
        states = Publisher(ledger.js, ledger.subjects.states_stream)
        await until(lambda: any(r.error for r in ledger.history[task.id]))
        await states.publish(ledger.subjects.about("note", "checkpoint", task.id), trap)
        with pytest.raises(DecodeError, match="can't be read as data"):
            await task.result(timeout=15)
    assert not mark.exists()


# -- callers --------------------------------------------------------------------


class Rogue:
    """Answers calls with what no worker of ours would send to a caller of data."""

    def __init__(self, client: Any, frames: list[Frame]) -> None:
        self._client = client
        self._frames = frames

    async def answer(self, message: Any) -> None:
        call, _ = decode(message.data)
        for frame in self._frames:
            frame.id = call.id
            await self._client.publish(message.reply, encode(frame), reply=f"{message.subject}.rogue")


@pytest.fixture
async def answered(shared_fleet: Fleet) -> AsyncIterator[Any]:
    server = shared_fleet.server
    client = await nats.connect(server.url, user=server.user, password=server.password)

    async def by(*frames: Frame) -> NatsExecutor:
        await client.subscribe(f"{shared_fleet.prefix}.call.faults", cb=Rogue(client, list(frames)).answer)
        await client.flush()
        return shared_fleet.caller(codec="data", timeout=10)

    yield by
    await client.close()


async def test_a_pickled_answer_is_refused(answered: Any, mark: Path, trap: bytes) -> None:
    pool = await answered(Frame(FrameKind.REPLY, body=trap))
    with pytest.raises(NotAllowedError, match=r"pool 'faults' takes data only"):
        await pool.submit(registered.echo, 1)
    assert not mark.exists()


async def test_a_pickled_error_is_refused(answered: Any, mark: Path, trap: bytes) -> None:
    pool = await answered(Frame(FrameKind.ERROR, name=b"builtins:ValueError", body=trap))
    with pytest.raises(NotAllowedError, match="data only"):
        await pool.submit(registered.echo, 1)
    assert not mark.exists()


async def test_pickled_items_and_progress_are_refused(answered: Any, mark: Path, trap: bytes) -> None:
    seen: list[Any] = []
    pool = await answered(Frame(FrameKind.PROGRESS, body=trap), Frame(FrameKind.ITEM, body=trap))
    stream = pool(registered.steps).options(on_progress=seen.append).stream(1)
    with pytest.raises(NotAllowedError, match="data only"):
        await anext(stream)
    await stream.aclose()
    assert not seen
    assert not mark.exists()


async def test_an_error_names_what_is_not_imported_here(answered: Any, mark: Path, trap: bytes) -> None:
    body = DATA.dump_error(ValueError(1)).replace(b"builtins:ValueError", b"antigravity:Nothing")
    pool = await answered(Frame(FrameKind.ERROR, body=body, flags=Flag.DATA))
    with pytest.raises(RemoteError, match="not imported here"):
        await pool.submit(registered.echo, 1)


async def test_pickled_outcomes_and_progress_of_tasks_are_refused(
    shared_tasks: TaskFleet, mark: Path, trap: bytes
) -> None:
    from genro_nats.tasks.record import Record, pack
    from genro_nats.tasks.status import TaskState

    pool = shared_tasks.caller(codec="data")
    async with shared_tasks.ledger() as ledger:
        states = Publisher(ledger.js, ledger.subjects.states_stream)
        task = await pool.enqueue(registered.echo, 1)
        progress = ledger.subjects.about("note", "progress", task.id)
        await states.publish(progress, encode(Frame(FrameKind.PROGRESS, body=trap)))
        begun = Record(TaskState.RUNNING, 1.0, attempts=1, function="m:f")
        await states.publish(ledger.subjects.state(task.id), pack(begun))
        assert (await task.status()).progress is None
        done = Record(TaskState.COMPLETED, 1.0, function="m:f")
        outcome = encode(Frame(FrameKind.REPLY, body=trap))
        await states.publish(ledger.subjects.state(task.id), pack(done, outcome))
        with pytest.raises(NotAllowedError, match="data only"):
            await asyncio.wait_for(task.result(), 10)
    assert not mark.exists()


async def test_what_a_pickle_caller_gets_from_a_careful_worker(shared_fleet: Fleet, notes: Notes) -> None:
    await shared_fleet.worker(**STRICT)
    with pytest.raises(NotAllowedError, match=r"--only-registered.*codec='data'") as refused:
        await shared_fleet.caller(timeout=10).submit(jobs.work, notes.path, "x")
    assert refused.value.reason == "pickle"
    assert not notes.lines()


def test_the_codecs_differ_only_in_their_flag() -> None:
    assert (PICKLE.flag, DATA.flag) == (0, Flag.DATA)
    with pytest.raises(ConfigurationError, match="codec"):
        NatsExecutor("p", codec="json")
