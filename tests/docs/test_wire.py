"""docs/wire.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from genro_nats.codec import frame
from genro_nats.transport import subjects

TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()


def test_every_kind_is_listed_with_its_number() -> None:
    listed = {name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z]+) \|", TEXT, re.M)}
    assert listed == {kind.name: kind.value for kind in frame.FrameKind}


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
    for subject in (*pool, subjects.worker_inbox("P", "W"), subjects.caller_inbox("P", "C") + "<call id>"):
        assert f"`{subject}`" in TEXT
