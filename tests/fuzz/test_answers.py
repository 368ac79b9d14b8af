"""Where a worker answers: what it says is sealed with its key, so no stranger may choose where that goes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nats
import pytest

from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.codec.signing import new_key
from genro_nats.message import new_id
from genro_nats.transport.subjects import is_inbox, presence_ask
from tests.faults import jobs, task_jobs
from tests.faults.conftest import Notes, until
from tests.faults.durable import TaskFleet

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("keyed", [True, False])
async def test_no_stranger_makes_a_worker_wish_for_anything(
    shared_tasks: TaskFleet, tmp_path: Path, notes: Notes, keyed: bool
) -> None:
    """A refused call and a question, each to be answered where an answer would cancel a task or spoil its record."""
    key: dict[str, Any] = {}
    if keyed:
        (tmp_path / "key").write_text(new_key("one"))
        key = {"key_file": str(tmp_path / "key")}
    worker = await shared_tasks.worker(max_workers=1, **key)
    pool = shared_tasks.caller(timeout=20, **key)
    running = await pool(task_jobs.show_pid).enqueue(notes.path, str(tmp_path / "go"))
    await notes.wait()
    subjects, prefix = shared_tasks.subjects, shared_tasks.prefix
    server = shared_tasks.server
    client = await nats.connect(server.url, user=server.user, password=server.password)
    inbox = f"{prefix}.reply.=.stranger.{new_id().hex()}"
    answers: list[bytes] = []

    async def hear(message: Any) -> None:
        answers.append(message.data)

    await client.subscribe(inbox, cb=hear)
    for where in (
        subjects.about("ask", "cancel", running.id),
        subjects.state(running.id),
        subjects.task("normal", None, running.id),
        f"$JS.API.STREAM.PURGE.{subjects.tasks_stream}",
        f"{prefix}.worker.x.drain",
        inbox,
    ):
        bad = encode(Frame(FrameKind.CALL, bytes.fromhex(running.id), b"m:f", seconds=float("nan")))
        for data in (bad, bad + b"more", b"nothing"):
            await client.publish(f"{prefix}.call.faults", data, reply=where)
        for question in ("$SRV.PING", "$SRV.INFO", presence_ask(prefix)):
            await client.publish(question, b"", reply=where)
    # Who asked properly is answered; of presence only who has the key.
    await until(lambda: sum(b'"prefix":' in data or b'"type":' in data for data in answers) == 3 - keyed)
    await until(lambda: any(b"DecodeError" in data or b"SignatureError" in data for data in answers))
    await until(lambda: worker.count("call.rejected") == 18)
    await client.close()
    assert (await running.status()).state == "running"
    (tmp_path / "go").touch()
    assert await running.result(timeout=15) == "attempt 1"
    assert await asyncio.wait_for(pool.submit(jobs.take_bytes, b"abc"), 10) == 3


def test_where_answers_may_go() -> None:
    good = ["_INBOX.abc.def", "genro.reply.=.c.1", "anything"]
    bad = [
        "",
        "$JS.API.STREAM.PURGE.x",
        "genro.ask.t.cancel.=.=.i",
        "genro.replies.x",
        "genro.call.s",
        "$SYS.x",
    ]
    assert all(is_inbox("genro", subject) for subject in good)
    assert not any(is_inbox("genro", subject) for subject in bad)
