"""docs/wire.md says what the code does."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path

from genro_nats.codec import frame, signing
from genro_nats.codec.blob import Blob, BlobId, blob_in, refer
from genro_nats.config import PoolOptions
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.letter import pack_letter
from genro_nats.tasks.message import meta_of
from genro_nats.tasks.options import TaskOptions
from genro_nats.tasks.record import Record, pack
from genro_nats.tasks.status import TaskState
from genro_nats.tasks.streams import DUPLICATES, LEVELS, stream_specs
from genro_nats.transport import contexts, subjects

TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()


def test_every_kind_is_listed_with_its_number() -> None:
    listed = {name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z]+) \|", TEXT, re.M)}
    assert listed == {name: number for number, name in frame.KINDS.items()}


def test_every_flag_is_listed() -> None:
    table = TEXT.split("| flag | meaning |")[1].split("\n\n")[0]
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.M)}
    assert listed == {value for name, value in vars(frame.Flag).items() if name.isupper()}


def test_the_header_and_its_limits() -> None:
    assert f"| {frame.HEADER_SIZE} | | name" in TEXT
    assert f"version {frame.VERSION}" in TEXT
    for limit in (frame.MAX_NAME, frame.MAX_META, frame.MAX_BUFFERS):
        assert f"{limit:,}" in TEXT


def test_the_subjects() -> None:
    pool = subjects.pool_subjects("P", "S")
    for subject in (*pool, subjects.worker_inbox("P", "W"), subjects.caller_inbox("P", "U.C") + "<call id>"):
        assert f"`{subject}`" in TEXT


TASKS = TEXT.split("## Durable tasks")[1]


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of a table."""
    table = text.split(head)[1].split("\n\n", maxsplit=1)[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_subjects_of_tasks_and_their_streams() -> None:
    one = subjects.TaskSubjects("P", "T")
    listed = {cells[0]: cells[2] for cells in rows(TASKS, "| subject | carries | stream |")}
    assert listed == {
        one.task("L", "K", "I"): one.tasks_stream,
        one.task("L", "K", "I", later=True): one.tasks_stream,
        one.of("schedule", "N"): one.tasks_stream,
        one.state("I").replace("=.=", "U.O"): one.states_stream,
        one.told("I").replace("=.=", "U.O"): "",
        **{
            one.about(room, "V", "I").replace("=.=", "U.O"): one.states_stream
            for room in ("ask", "note", "index")
        },
        one.of("dead", "I"): one.dead_stream,
        one.of("blob", "U", "B", "n"): one.blobs_stream,
        one.of("blob", "U", "B", "head"): one.blobs_stream,
    }
    stored = [subject for spec in stream_specs(one, PoolOptions()) for subject in spec.subjects]
    assert sorted(subject.split(".")[1] for subject in stored) == sorted(
        {subject.split(".")[1] for subject, stream in listed.items() if stream}
    )
    assert subjects.token("tasks.heavy") == "tasks_heavy"
    assert f"duplicate check, {DUPLICATES:g} seconds" in TASKS
    assert (
        "named " + " and ".join((", ".join(f"`{level}`" for level in LEVELS[:2]), f"`{LEVELS[2]}`")) in TASKS
    )


def test_the_meta_of_tasks() -> None:
    options = TaskOptions(
        retries=1, backoff=2, backoff_factor=3, max_backoff=4, retry_on=(ValueError,), give_up_on=(KeyError,),
        expires=5, result_ttl=6, keep_result=False,
    )  # fmt: skip
    meta = json.loads(meta_of("i", "m:f", "t", options, created_at=1.0))
    listed = {cells[0]: cells[1] for cells in rows(TASKS, "| key | meaning |")}
    assert set(listed) == {*meta, "attempt"}
    assert set(re.findall(r"`(\w+)`", listed["task"])) == set(meta["task"])


def test_the_record_byte_by_byte() -> None:
    record = Record(
        TaskState.RUNNING, 1.5, 2, 3, 4, 6, "claim", False, "worker", 5, 2.5, keep=False, error="é"
    )
    packed = pack(record, b"outcome")
    described = TASKS.split("### A task's record")[1].split("### A dead letter")[0]
    table = rows(described, "| offset | size | meaning |")
    sizes = [(int(cells[0]), int(cells[1])) for cells in table if cells[1]]
    assert [at + size for at, size in sizes] == [at for at, _ in sizes[1:]] + [68]
    assert table[1][2] == "state: " + ", ".join(f"{number} {state}" for number, state in enumerate(TaskState))
    assert list(packed[:4]) == [1, 2, 0, 0]
    assert struct.unpack("!5I", packed[4:24]) == (2, 3, 4, 6, 5)
    moments = struct.unpack("!4d", packed[24:56])
    assert moments[:2] == (1.5, 2.5)
    assert all(map(math.isnan, moments[2:]))
    assert struct.unpack("!6H", packed[56:68]) == (5, 6, 2, 0, 0, 0)
    assert packed[68:] == "claimworkeré".encode() + b"outcome"
    assert set(Record.__slots__) <= set(re.findall(r"`(\w+)`", described))


def test_the_dead_letter_byte_by_byte() -> None:
    packed = pack_letter(DeadLetter("i", "f", "r", "e", 1, 2, 3.0), "s", b"message")
    length = int.from_bytes(packed[:4], "big")
    assert packed[4 + length :] == b"message"
    (facts,) = (
        cells[2] for cells in rows(TASKS.split("### A dead letter")[1], "| offset | size | meaning |")[1:2]
    )
    assert re.findall(r"`(\w+)`", facts) == list(json.loads(packed[4 : 4 + length]))


def test_the_seal() -> None:
    layout = {
        cells[2]: (int(cells[0]), int(cells[1])) for cells in rows(TEXT.split("## Seals")[1], "| meaning |")
    }
    assert layout == {
        "magic": (0, 4),
        "key id": (4, 8),
        "time": (12, 8),
        "code": (20, signing.SEAL_SIZE - 20),
    }
    assert f"`{signing.MAGIC.hex(' ')}`" in TEXT
    assert f"`replay_window` ({PoolOptions().replay_window:g} s)" in TEXT


def test_what_is_not_sealed() -> None:
    assert {"$", "api"} == contexts.SERVER
    assert "subjects that begin with `$`, and `P.api.…`" in TEXT
    table = TEXT.split("| message | first text |")[1].split("\n\n")[0]
    assert {*re.findall(r"`P\.(\w+)\.…`", table), "bulk"} == {*contexts.STORED, "bulk"}


def test_the_reference_to_a_stored_payload_byte_by_byte() -> None:
    stored = Blob(BlobId("0a" * 4, b"i" * 16), 300, b"h" * 32, 4, (5, 6 | frame.READ_ONLY))
    packed = stored.pack()
    table = rows(TASKS.split("### Stored payloads")[1], "| offset | size | field |")
    assert [(int(at), int(size)) for at, size, _ in table[:-1]] == [
        (0, 8),
        (8, 16),
        (24, 4),
        (28, 32),
        (60, 8),
        (68, 2),
    ]
    assert table[-1][:2] == ["70", "8 × buffers"]  # noqa: RUF001
    assert packed[:24] == b"0a0a0a0a" + b"i" * 16
    assert int.from_bytes(packed[24:28], "big") == 300
    assert packed[28:60] == b"h" * 32
    assert int.from_bytes(packed[60:68], "big") == 4
    assert int.from_bytes(packed[68:70], "big") == 2
    assert struct.unpack("!2Q", packed[70:]) == (5, 6 | frame.READ_ONLY)
    head = frame.Frame(frame.FrameKind.REPLY, bytes(16))
    assert blob_in(refer(head, stored))[1] == stored
