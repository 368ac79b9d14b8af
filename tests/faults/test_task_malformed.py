"""What is no task, no record and no request where these are expected: put aside, and the rest goes on."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from genro_nats.codec.frame import Flag, Frame, FrameKind, encode
from genro_nats.errors import DecodeError, TaskError, TaskFailedError
from genro_nats.tasks.record import Record, Stored, pack
from genro_nats.tasks.status import TaskState
from genro_nats.transport.publisher import Publisher
from genro_nats.transport.subjects import owner_tokens
from tests.faults import task_jobs
from tests.faults.conftest import Notes, Worker, until
from tests.faults.durable import TaskFleet

pytestmark = pytest.mark.anyio


def errors(worker: Worker) -> list[str]:
    """What it logged."""
    return worker.log.with_suffix(".err").read_text().splitlines()


async def serves(tasks: TaskFleet, notes: Notes) -> None:
    pool = tasks.caller()
    task = await pool.enqueue(task_jobs.work, notes.path, "after")
    assert await task.result(timeout=10) == "after"


def call(id: str = "x", **meta: Any) -> bytes:
    """A task's frame that could be run, but for its meta."""
    facts = {"id": id, "at": "", **meta}
    return encode(Frame(FrameKind.CALL, bytes(16), b"m:f", json.dumps(facts).encode(), flags=Flag.TASK))


MESSAGES = {
    "empty": b"",
    "garbage": b"not a frame at all",
    "truncated": call()[:-3],
    "plain-call": encode(Frame(FrameKind.CALL, bytes(16), b"m:f")),
    "reply": encode(Frame(FrameKind.REPLY, bytes(16))),
    "meta-no-json": encode(Frame(FrameKind.CALL, bytes(16), b"m:f", b"{", flags=Flag.TASK)),
    "meta-list": encode(Frame(FrameKind.CALL, bytes(16), b"m:f", b"[1]", flags=Flag.TASK)),
    "meta-huge": encode(Frame(FrameKind.CALL, bytes(16), b"m:f", b" " * 1_000_000, flags=Flag.TASK)),
    "id-number": call(id=3),  # type: ignore[arg-type]
    "name-bytes": encode(Frame(FrameKind.CALL, bytes(16), b"\xff:f", b'{"id": "x"}', flags=Flag.TASK)),
    "retries": call(task={"retries": -1}),
    "backoff": call(task={"backoff": math.nan}),
    "expires": call(task={"expires": "soon"}),
    "task-list": call(task=[1]),
    "ttl": call(task={"ttl": math.inf}),
    "ttl-negative": call(task={"ttl": -5}),
    "expires-nan": call(task={"expires": math.nan}),
    "created": call(task={"created": math.inf}),
    "id-empty": call(id=""),
    "id-long": call(id="x" * 5000),
}


async def test_unreadable_messages_are_put_aside(shared_tasks: TaskFleet, notes: Notes) -> None:
    worker = await shared_tasks.worker()
    async with shared_tasks.ledger() as ledger:
        stream = Publisher(ledger.js, ledger.subjects.tasks_stream)
        for name, data in MESSAGES.items():
            await stream.publish(ledger.subjects.of("task", "now", "normal", "=", name), data)
        await ledger.empty()  # none comes again
        await serves(shared_tasks, notes)
        letters = await shared_tasks.caller().dead.list()
        assert len(letters) == len(MESSAGES)
        assert {letter.reason for letter in letters} == {"unreadable"}
        assert worker.count("task.unreadable") == len(MESSAGES)
        with pytest.raises(TaskError, match="no call that could be replayed"):
            await shared_tasks.caller().dead.replay(letters[0].id)
    assert not any("Traceback" in line for line in errors(worker))


async def test_what_is_as_large_as_the_server_takes_can_be_put_aside(
    shared_tasks: TaskFleet, notes: Notes
) -> None:
    """A dead letter is larger than its message by a few facts."""
    worker = await shared_tasks.worker()
    async with shared_tasks.ledger() as ledger:
        size = (32 << 20) - 300  # a stream takes no more
        stream = Publisher(ledger.js, ledger.subjects.tasks_stream)
        await stream.publish(ledger.subjects.of("task", "now", "normal", "=", "big"), bytes(size))
        await ledger.empty(60)
        await until(lambda: worker.count("task.unreadable"))
        (letter,) = await shared_tasks.caller().dead.list()
        assert letter.reason == "unreadable"
        with pytest.raises(TaskError, match="too large"):
            await shared_tasks.caller().dead.replay(letter.id)
        assert worker.count("task.unreadable") == 1
        await serves(shared_tasks, notes)


_GOOD = pack(Record(TaskState.RUNNING, 1.0, function="m:f"))

RECORDS = {
    "empty": b"",
    "garbage": b"garbage",
    "long": b"garbage " * 100,
    "state": _GOOD[:1] + b"\x4d" + _GOOD[2:],
    "version": b"\x07" + _GOOD[1:],
    "short": _GOOD[:-1],
    "never": pack(Record(TaskState.RUNNING, math.nan)),
    "endless": pack(Record(TaskState.RUNNING, math.inf)),
}


@pytest.mark.parametrize("data", RECORDS.values(), ids=RECORDS)
def test_a_garbage_record_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        _ = Stored(data, 1).record


async def test_a_garbage_record_fails_its_task(shared_tasks: TaskFleet, notes: Notes) -> None:
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        states = Publisher(ledger.js, ledger.subjects.states_stream)
        kept = await pool.enqueue(task_jobs.work, notes.path, "kept")
        bad = []
        for data in RECORDS.values():
            task = await pool.enqueue(task_jobs.work, notes.path, "never")
            await states.publish(ledger.subjects.state(task.id), data)
            bad.append(task)
        # Its request to be cancelled must not keep a worker from starting.
        await ledger.store.note("ask", "cancel", bad[0].id)
        worker = await shared_tasks.worker()
        assert await kept.result(timeout=10) == "kept"
        for task in bad[1:]:
            with pytest.raises(TaskFailedError, match="A task's state"):
                await pool.task(task.id).result(timeout=10)
        assert (await ledger.outcome(bad[0].id)).state in (TaskState.FAILED, TaskState.CANCELLED)
        await ledger.check(task.id for task in (*bad, kept))
        assert notes.lines() == ["kept"]
    assert not any("Traceback" in line for line in errors(worker))


async def test_one_garbage_record_hides_no_other(shared_tasks: TaskFleet, notes: Notes) -> None:
    """Neither in lists nor for who waits."""
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.work, notes.path, "a")
        states = Publisher(ledger.js, ledger.subjects.states_stream)
        await states.publish(ledger.subjects.state("f" * 32), RECORDS["never"])
        await states.publish(ledger.subjects.state(task.id[:16] + "0" * 16), b"garbage")
        await ledger.store.note("index", "failed", "f" * 32)
        await shared_tasks.worker()
        assert await task.result(timeout=10) == "a"
        assert [status.id async for status in pool.tasks()] == [task.id]
        assert [status.id async for status in pool.tasks(state="failed")] == []
        assert [status.id async for status in pool.tasks(state="completed")] == [task.id]


async def test_foreign_objects_on_the_subjects_between(
    shared_tasks: TaskFleet, notes: Notes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        subjects, connection = ledger.subjects, ledger.js.connection
        release = tmp_path / "release"
        task = await pool.enqueue(task_jobs.go_on, notes.path, str(release), 3)
        waiting = asyncio.create_task(task.result(timeout=20))
        watch = task.watch()
        await anext(watch)
        await notes.wait()
        owner = owner_tokens(task.id)
        for subject in (
            subjects.told(task.id),
            subjects.of("told", owner, "zz=zz"),
            subjects.about("note", "progress", task.id),
            subjects.of("ask", "x"),
            subjects.of("ask", "cancel", "=", "=", "unknown"),
            subjects.of("ask", "cancel", "=", "=", "=ZZ=FF"),
            subjects.of("ask", "cancel", "a", "b", "c", "d"),
            subjects.of("ask", "dance", "=", "=", "y"),
            subjects.of("ask", "forget", "=", "=", "unknown"),
        ):
            for data in RECORDS.values():
                await connection.publish(subject, data)
        release.touch()
        assert await waiting == [0, 1, 2]
        assert [status.state async for status in watch][-1] is TaskState.COMPLETED
        await ledger.check([task.id])
        await serves(shared_tasks, notes)
    assert not any("Traceback" in line for line in errors(worker))
    assert "Traceback" not in caplog.text

    # Who starts later meets what is stored of it.
    later = await shared_tasks.worker()
    assert not any("Traceback" in line for line in errors(later))


async def test_a_garbage_checkpoint_is_the_function_s_failure(shared_tasks: TaskFleet, notes: Notes) -> None:
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.go_on, notes.path, notes.path, 1)
        await ledger.store.note("note", "checkpoint", task.id, b"no pickle")
        await ledger.store.save(task.id, Record(TaskState.PENDING, 1.0, attempts=1), expected=0)
        await shared_tasks.worker()
        with pytest.raises(DecodeError):
            await pool.task(task.id).result(timeout=10)
        await ledger.check([task.id])


@pytest.mark.parametrize("due", [1e300, math.inf, math.nan, -1e300])
async def test_a_record_with_an_odd_time_does_not_make_it_spin(
    due: float, shared_tasks: TaskFleet, notes: Notes
) -> None:
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        task = await pool.enqueue(task_jobs.work, notes.path, "x")
        record = Record(TaskState.SCHEDULED, 1.0, attempts=1, next_retry_at=due)
        await ledger.store.save(task.id, record, expected=0)
        worker = await shared_tasks.worker()
        await serves(shared_tasks, notes)
        if due == 1e300:
            assert await task.cancel()
        await ledger.outcome(task.id)
        await ledger.empty()
    assert not any("Traceback" in line for line in errors(worker))
