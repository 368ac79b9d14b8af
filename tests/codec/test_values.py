"""Values survive the trip; what can't is named."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

from genro_nats.codec import values
from genro_nats.codec.frame import Frame, FrameKind, decode, encode
from genro_nats.errors import CodecError, DecodeError


def trip(value: Any) -> Any:
    body, buffers = values.dumps(value)
    frame, _ = decode(encode(Frame(FrameKind.REPLY, body=body, buffers=buffers)))
    return values.loads(frame.body, frame.buffers)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.5,
        "text",
        b"x",
        [1, {"a": (2, 3)}],
        bytes(200_000),
        bytearray(200_000),
        {b"k": bytes(70_000)},
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_a_value_and_its_type_survive(value: Any) -> None:
    again = trip(value)
    assert again == value
    assert type(again) is type(value)


def test_an_array_is_not_copied_into_the_pickle_and_arrives_writable() -> None:
    array = np.arange(100_000)
    body, buffers = values.dumps(array)
    assert len(body) < 1000
    assert len(buffers) == 1
    again = trip(array)
    again[0] = 7
    assert array[0] == 0


class Column:
    """Gives its buffer as Arrow's arrays do."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Column, (pickle.PickleBuffer(self.buffer),)


def test_buffers_of_other_libraries_are_not_copied_into_the_pickle() -> None:
    column = Column(bytearray(200_000))
    body, buffers = values.dumps(column)
    assert len(body) < 3_000
    assert np.shares_memory(np.frombuffer(buffers[0], "u1"), np.frombuffer(column.buffer, "u1"))
    again = trip(column).buffer
    again[0] = 7
    assert (column.buffer[0], bytes(again[1:])) == (0, bytes(199_999))


def test_a_table_of_arrow_is_not_copied_into_the_pickle() -> None:
    table = pyarrow.table({"a": np.arange(50_000), "b": np.linspace(0.0, 1.0, 50_000)})
    body, buffers = values.dumps(table)
    assert len(body) < 3_000
    columns = [table.column(name).chunk(0).buffers()[1] for name in ("a", "b")]
    for column, buffer in zip(columns, buffers, strict=True):
        assert np.shares_memory(np.frombuffer(buffer, "u1"), np.frombuffer(column, "u1"))
    assert trip(table).equals(table)


def test_a_lambda_goes_by_value() -> None:
    assert trip(lambda x: x + 1)(2) == 3


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(CodecError, match="lock"):
        values.dumps({"a": threading.Lock()})


def test_a_deeply_nested_value_is_an_error_not_a_crash() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(CodecError):
        values.dumps(nested)


def test_bytes_that_are_no_pickle() -> None:
    with pytest.raises(DecodeError, match="can't be unpickled"):
        values.loads(b"no pickle")


def test_what_lives_in_main_goes_by_value(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        "import sys\n"
        "from genro_nats.codec import values\n"
        "class Point:\n"
        "    def __init__(self, x): self.x = x\n"
        "body, _ = values.dumps(Point(3))\n"
        "sys.stdout.buffer.write(body)\n"
    )
    body = subprocess.run([sys.executable, str(script)], capture_output=True, check=True, timeout=30).stdout
    assert values.loads(body).x == 3
