"""Large bytes stay out of the pickle wherever they stand, and what comes back is what went in."""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genro_nats.codec import values
from genro_nats.codec.assembly import FrameAssembly
from genro_nats.codec.frame import MAX_VALUE_BUFFERS, OUT_OF_BAND, Frame, FrameKind, decode, encode


def trip(value: Any) -> Any:
    body, buffers = values.dumps(value)
    frame, _ = decode(encode(Frame(FrameKind.REPLY, body=body, buffers=buffers)))
    return values.loads(frame.body, frame.buffers)


@dataclass
class Upload:
    name: str
    data: bytes


class Slotted:
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Name(bytes):
    """Bytes of another type."""


BLOB = bytes(range(256)) * 1024


@pytest.mark.parametrize(
    ("wrapped", "unwrapped"),
    [
        (BLOB, lambda v: v),
        ([BLOB], lambda v: v[0]),
        ({"deep": [(1, BLOB)]}, lambda v: v["deep"][0][1]),
        ({BLOB: 1}, lambda v: next(iter(v))),
        ({BLOB}, lambda v: next(iter(v))),
        (deque([BLOB]), lambda v: v[0]),
        (Upload("a", BLOB), lambda v: v.data),
        (Slotted(BLOB), lambda v: v.data),
        (np.array([BLOB], object), lambda v: v[0]),
        ((lambda: BLOB, BLOB), lambda v: v[1]),  # by cloudpickle
    ],
    ids=["bare", "list", "dict", "key", "set", "deque", "dataclass", "slots", "objects", "cloudpickle"],
)
def test_large_bytes_are_not_copied_into_the_pickle(wrapped: Any, unwrapped: Any) -> None:
    body, buffers = values.dumps(wrapped)
    assert len(body) < 3000
    assert any(buffer is BLOB for buffer in buffers)
    again = unwrapped(trip(wrapped))
    assert type(again) is bytes
    assert again == BLOB


def test_a_large_bytearray_is_not_copied_into_the_pickle_and_arrives_as_one() -> None:
    blob = bytearray(BLOB)
    body, (buffer,) = values.dumps({"data": [blob]})
    assert len(body) < 100
    assert np.shares_memory(np.frombuffer(buffer, "u1"), np.frombuffer(blob, "u1"))
    with pytest.raises(BufferError):
        blob.append(1)  # its frame states its length
    again = trip({"data": [blob]})["data"][0]
    assert type(again) is bytearray
    again[0] = 7
    assert (blob[0], again[1:]) == (0, blob[1:])


def test_what_was_pulled_is_not_copied_again() -> None:
    value = {"a": bytearray(BLOB), "b": BLOB, "c": np.frombuffer(BLOB, "u1").copy()}
    body, buffers = values.dumps(value)
    data = encode(Frame(FrameKind.REPLY, body=body, buffers=buffers))
    assembly = FrameAssembly(len(data))
    for at in range(0, len(data), 100_000):
        assembly.write(memoryview(data)[at : at + 100_000])
    frame = assembly.frame()
    again = values.loads(frame.body, frame.buffers)
    assert again["a"] is frame.buffers[0]
    assert again["b"] is frame.buffers[1]
    assert np.shares_memory(again["c"], np.frombuffer(frame.buffers[2], "u1"))
    assert (again["a"], again["b"], bytes(again["c"])) == (BLOB, BLOB, BLOB)
    again["c"][0] = 7


def test_bytes_of_another_type() -> None:
    again = trip([Name(BLOB)])[0]
    assert type(again) is Name
    assert again == BLOB


def test_one_object_stays_one() -> None:
    blob, array = bytes(OUT_OF_BAND), bytearray(OUT_OF_BAND)
    body, buffers = values.dumps([blob, array, {"again": (blob, array)}])
    assert (len(body) < 200, len(buffers)) == (True, 2)
    one, two, more = trip([blob, array, {"again": (blob, array)}])
    assert more["again"][0] is one
    assert more["again"][1] is two


@pytest.mark.parametrize("size", [OUT_OF_BAND - 1, OUT_OF_BAND, OUT_OF_BAND + 1])
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda n: np.zeros(n, "u1")])
def test_the_limit(size: int, kind: Any) -> None:
    _, buffers = values.dumps([kind(size)])
    assert len(buffers) == (size >= OUT_OF_BAND)


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda n: np.zeros(n, "u1")])
def test_what_is_past_the_number_of_buffers_is_copied(kind: Any) -> None:
    value = [kind(OUT_OF_BAND) for _ in range(MAX_VALUE_BUFFERS + 2)]
    body, buffers = values.dumps([value, b"last"])
    assert len(buffers) == MAX_VALUE_BUFFERS
    assert 2 <= len(body) // OUT_OF_BAND < 5  # two values, and some bytes for each that is left out
    again, last = values.loads(body, buffers)
    assert [len(one) for one in again] == [OUT_OF_BAND] * len(value)
    assert last == b"last"


def test_whole_is_whole() -> None:
    value = {"a": BLOB, "b": bytearray(BLOB), "c": (np.arange(100_000), lambda: BLOB)}
    again = pickle.loads(values.dumps_whole(value))
    assert (again["a"], again["b"], again["c"][1]()) == (BLOB, BLOB, BLOB)
    assert (again["c"][0] == np.arange(100_000)).all()


def test_bytes_over_4_gib_are_announced_otherwise() -> None:
    blob = bytes((1 << 32) + 1)  # takes no memory, as long as nobody reads it
    body, buffers = values.dumps([blob, b"more"])
    assert (len(body) < 100, len(buffers)) == (True, 1)
    again, more = values.loads(body, buffers)
    assert again is blob
    assert more == b"more"


# Whatever looks like pickle's own writing: frames that announce something, and opcodes with lengths.
looks = st.sampled_from(
    [
        pickle.dumps(bytes(OUT_OF_BAND), 5)[: OUT_OF_BAND // 2],
        pickle.PROTO + b"\x05" + pickle.FRAME + (3).to_bytes(8, "little") + b"abc" + pickle.BINBYTES,
        pickle.BINBYTES + OUT_OF_BAND.to_bytes(4, "little"),
        pickle.BYTEARRAY8 + OUT_OF_BAND.to_bytes(8, "little"),
        pickle.FRAME + bytes(8),
        b"\x94",
        b"x",
    ]
)
lengths = st.sampled_from([0, 1, 4, 5, 9, 12, 200, OUT_OF_BAND - 1, OUT_OF_BAND, OUT_OF_BAND + 1, 100_000])


@st.composite
def contents(draw: Any, kind: type[bytes] | type[bytearray] = bytes) -> Any:
    head, tail, length = draw(looks), draw(looks), draw(lengths)
    middle = max(0, length - len(head) - len(tail))
    return kind((head + bytes(middle) + tail)[:length] if draw(st.booleans()) else bytes(middle) + tail)


leaves = st.one_of(
    contents(),
    contents(bytearray),
    contents().map(lambda b: b.decode("latin-1")),  # a text as long as a frame is written apart too
    contents().map(lambda b: "€" * (len(b) // 3)),
    contents().map(lambda b: np.frombuffer(bytearray(b), "u1")),
    st.integers(),
    st.none(),
    st.just(tuple(range(20_000))),  # more than a frame
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@settings(max_examples=400, deadline=None)
@given(trees)
@example([bytes(OUT_OF_BAND)] * 2 + [bytes(OUT_OF_BAND + 1), "x" * OUT_OF_BAND, bytearray(OUT_OF_BAND)])
@example([bytes(OUT_OF_BAND), None, bytearray(OUT_OF_BAND), 1, 2, "x" * OUT_OF_BAND, b"\x95" * OUT_OF_BAND])
def test_what_goes_in_comes_out(value: Any) -> None:
    body, buffers = values.dumps(value)
    assert same(trip(value), value)
    large = [
        one
        for one in flat(value)
        if isinstance(one, bytes | bytearray | np.ndarray) and len(one) >= OUT_OF_BAND
    ]
    assert len(buffers) == len({id(one) for one in large})
    texts = sum(3 * len(one) for one in flat(value) if isinstance(one, str))
    assert len(body) < texts + 200_000 * sum(1 for one in flat(value)) + 200


def flat(value: Any) -> list[Any]:
    """What a tree of lists and dictionaries holds."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for one in value for leaf in flat(one)] if isinstance(value, list) else [value]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and same(list(one.values()), list(other.values()))
    if isinstance(one, list):
        return type(other) is list and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return type(other) is np.ndarray and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)
