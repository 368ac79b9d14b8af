"""The data codec: what goes in comes out, what is no data is named, and hostile bytes do nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import sys
import threading
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from genro_nats import CodecError, DecodeError, NotAllowedError, data_type
from genro_nats.codec import arrays, data
from genro_nats.codec.codecs import DATA, Codecs, codec_of
from genro_nats.codec.datatypes import Types
from genro_nats.codec.frame import MAX_VALUE_BUFFERS, OUT_OF_BAND, Buffer, Flag
from genro_nats.codec.loaded import MISSING, loaded


@data_type
class Colour(enum.Enum):
    RED = "red"
    BLUE = ("b", 1)


@data_type
class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


@data_type
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Part:
    level: Level


@dataclasses.dataclass
class Whole:
    parts: list[Part]

    def __post_init__(self) -> None:
        CREATED.append(self)


class Pair(NamedTuple):
    a: int
    b: Part


CREATED: list[Any] = []


def build(whole: Whole, pair: Pair | None, kind: Literal["x"]) -> dict[str, Part]:
    raise NotImplementedError


def there_and_back(value: Any, types: Types | None = None) -> Any:
    body, buffers = data.dumps(value)
    assert data.dumps_whole(value)  # and in one piece
    return data.loads(memoryview(body), buffers, types)


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types all through, NaN like NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is dict:
        return len(one) == len(other) and all(
            same(a, b) and same(v, w) for (a, v), (b, w) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, datetime | time):
        return bool(one == other and one.utcoffset() == other.utcoffset() and one.fold == other.fold)
    return bool(one == other)


zones: Any = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Rome")])
hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 200), 1 << 200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(st.characters(categories=["Cs", "Ll"]))
    | st.binary()
    | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=zones)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([*Colour, Rights.READ, Rights.READ | Rights.WRITE, Rights(0)])
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.builds(Point, inner, inner),
    max_leaves=5,
)
values = st.recursive(
    hashable | st.floats() | st.binary().map(bytearray) | st.sets(hashable, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=8), inner, max_size=5)
        | st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(values)
@example([b"x" * OUT_OF_BAND, {"deep": (bytearray(OUT_OF_BAND + 1),)}])
@example({1: "a", 2.5: "b", None: "c", False: "d", b"e": "f", "g": [[], {}, ()]})
@example([1 << 64, (1 << 64) - 1, -(1 << 63), -(1 << 63) - 1])
def test_what_goes_in_comes_out(value: Any) -> None:
    assert same(there_and_back(value), value)


def test_plain_values_are_plain_msgpack() -> None:
    for value in [[1, {"a": "ü"}, None, 2.5, True, b"x"], {"k": [{}]}, 5, "text"]:
        body, buffers = data.dumps(value)
        assert (body, buffers) == (msgpack.encode(value), [])


def test_a_call() -> None:
    body, buffers = data.dumps_call((1, (2,)), {"k": {3}}, [("m:v", "w")])
    assert data.loads(body, buffers) == [[1, (2,)], {"k": {3}}, [["m:v", "w"]]]


def test_large_bytes_and_arrays_are_buffers_and_not_copied() -> None:
    blob, more = bytes(OUT_OF_BAND), bytearray(OUT_OF_BAND)
    array = np.arange(20_000.0)
    body, buffers = data.dumps([blob, {"more": more}, array])
    assert len(body) < 200
    assert buffers[0] is blob and buffers[1] is more
    assert np.shares_memory(np.frombuffer(buffers[2]), array)
    received: list[Buffer] = [blob, bytearray(more), memoryview(bytearray(buffers[2]))]
    one, two, three = data.loads(body, received)
    assert one is blob
    assert two["more"] is received[1]
    assert np.shares_memory(three, np.frombuffer(received[2])) and three.flags.writeable


@pytest.mark.parametrize("wrap", [lambda b: b, lambda b: [b], lambda b: {"k": [1, b]}, lambda b: {b: 1}])
def test_large_bytes_are_a_buffer_wherever_they_stand(wrap: Any) -> None:
    value = wrap(bytes(OUT_OF_BAND))
    body, buffers = data.dumps(value)
    assert len(body) < 100 and len(buffers) == 1
    assert data.loads(body, buffers) == value


def test_what_is_past_the_number_of_buffers_stays_in_the_body() -> None:
    blob, array = bytes(OUT_OF_BAND), np.zeros(OUT_OF_BAND, "u1")
    for one in (blob, array):
        body, buffers = data.dumps([one] * (MAX_VALUE_BUFFERS + 1))
        assert len(buffers) == MAX_VALUE_BUFFERS
        assert 1 <= len(body) // OUT_OF_BAND < 3  # one value, and some bytes for each that is left out
        again = data.loads(body, buffers)
        assert len(again) == MAX_VALUE_BUFFERS + 1
        assert bytes(again[-1]) == blob


ARRAYS = [
    np.zeros(3),
    np.zeros((0, 3)),
    np.array(5),
    np.arange(12).reshape(3, 4).T,
    np.asfortranarray(np.ones((200, 100))),
    np.arange(20)[::-2],
    np.array(["a", "wörd"]),
    np.array([b"x", b"yz"]),
    np.array(["2026-01-01", "NaT"], dtype="M8[us]"),
    np.array([True, False]),
    np.arange(3, dtype=">i2"),
    np.array([1 + 2j]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays(array: Any) -> None:
    found = there_and_back([array])[0]
    assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, True)
    np.testing.assert_array_equal(found, array)


def test_as_many_dimensions_as_the_receiver_takes() -> None:
    assert there_and_back(np.zeros((1,) * 32)).ndim == 32
    refused = SimpleNamespace(ndim=33, dtype=np.dtype("f8"))  # NumPy 1 has no such array
    with pytest.raises(CodecError, match=r"33 dimensions can't be sent as data: 32 are the most\..*reshape"):
        arrays.array_parts(refused)


@pytest.mark.skipif(int(np.__version__[0]) < 2, reason="an array of NumPy 1 has 32 dimensions at most")
def test_more_dimensions_are_refused_before_they_are_sent() -> None:
    for size in (1, OUT_OF_BAND):
        with pytest.raises(CodecError, match="40 dimensions"):
            data.dumps([np.zeros((size,) + (1,) * 39)])


@pytest.mark.parametrize(
    "scalar", [np.float64(2.5), np.int8(-3), np.bool_(True), np.str_("é"), np.datetime64(5, "D")]
)
def test_scalars(scalar: Any) -> None:
    found = there_and_back(scalar)
    assert (found, type(found)) == (scalar, type(scalar))


# -- types ------------------------------------------------------------------


def test_types_are_known_by_the_annotations_of_a_function() -> None:
    types = Types()
    value = Whole([Part(Level.LOW)]), Pair(1, Part(Level.LOW))
    body, _ = data.dumps(value)
    with pytest.raises(NotAllowedError, match=r"test_data:Whole.*annotations.*data_type") as refused:
        data.loads(body, (), types)
    assert refused.value.reason == "type"
    types.learn(build)
    CREATED.clear()
    assert data.loads(body, (), types) == value
    assert not CREATED, "reading data ran an __init__"


def test_annotations_that_are_for_type_checkers_only_hide_no_others() -> None:
    def function(a: Whole, b: Any) -> None: ...

    function.__annotations__ = {"a": "Whole", "b": "OnlyForCheckers"}
    types = Types()
    types.learn(function)
    assert types.find(f"{__name__}:Part") is Part


def test_a_type_that_is_not_marked_is_not_found_though_its_module_is_imported() -> None:
    for name in (f"{__name__}:Whole", "subprocess:Popen", "os:system", "no.such:Thing", "", ":", 5, None):
        with pytest.raises(NotAllowedError):
            Types().find(name)
    assert Types().find(f"{__name__}:Point") is Point


@data_type
@dataclasses.dataclass
class Doubled:
    x: int

    def __post_init__(self) -> None:
        self.double = self.x * 2


class Undecorated(Part):
    def __init__(self, level: Level, more: int) -> None:
        super().__init__(level)
        self.more = more


class SlotBelow(Part):
    __slots__ = ("__hidden", "below")


class NamedMore(Pair):
    more: int


@dataclasses.dataclass
class Listed(list):  # type: ignore[type-arg]
    n: int = 0


@dataclasses.dataclass
class Keyed(dict):  # type: ignore[type-arg]
    n: int = 0


@dataclasses.dataclass
class Raised(Exception):
    n: int = 0


@dataclasses.dataclass
class Counted:
    n: int = 0

    def __new__(cls, *_: Any) -> Any:
        CREATED.append(cls)
        return object.__new__(cls)


def _with(value: Any, **more: Any) -> Any:
    for name, one in more.items():
        setattr(value, name, one)
    return value


@pytest.mark.parametrize(
    ("value", "name", "why"),
    [
        (Doubled(3), "Doubled", "attribute 'double' is no field"),
        (Undecorated(Level.LOW, 2), "Undecorated", "attribute 'more' is no field"),
        (_with(SlotBelow(Level.LOW), below=1), "SlotBelow", "attribute 'below' is no field"),
        (_with(SlotBelow(Level.LOW), _SlotBelow__hidden=1), "SlotBelow", "'_SlotBelow__hidden' is no field"),
        (_with(NamedMore(1, Part(Level.LOW)), more=2), "NamedMore", "attribute 'more' is no field"),
        (_with(Part(Level.LOW), added=2), "Part", "attribute 'added' is no field"),
        (Listed(), "Listed", "it is of the type list too"),
        (Keyed(), "Keyed", "it is of the type dict too"),
        (Raised(), "Raised", "it is of the type Exception too"),
        (Counted(), "Counted", r"Counted\.__new__ would not run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_more_than_its_fields_is_refused(value: Any, name: str, why: str) -> None:
    for nested in (value, [value], [value] * 2, {"k": (value,)}):
        with pytest.raises(CodecError, match=rf"{name} can't be sent as data: .*{why}.*codec='pickle'"):
            data.dumps(nested)


T = TypeVar("T")


@data_type
@dataclasses.dataclass
class Squared(Generic[T]):
    x: int

    @cached_property
    def square(self) -> int:
        return self.x**2


@data_type
class Summed(NamedTuple):
    a: int


@data_type
class SummedMore(Summed):
    @cached_property
    def twice(self) -> int:
        return self.a * 2


@data_type
class Beneath(Point):
    """No more state than what it inherits."""


def test_what_is_worked_out_again_may_be_left_out() -> None:
    one, other = Squared[int](3), SummedMore(4)
    assert (one.square, other.twice) == (9, 8)
    again, more = there_and_back([one, other])
    assert (again, more) == (one, other)
    assert (vars(again), vars(more)) == ({"x": 3}, {})
    assert (again.square, more.twice) == (9, 8)
    assert there_and_back(Beneath(1, 2)) == Beneath(1, 2)


def test_only_data_types_can_be_marked() -> None:
    with pytest.raises(TypeError, match="no dataclass"):
        data_type(threading.Thread)


def test_a_field_that_was_added_or_dropped_meanwhile() -> None:
    made = data.loads(_marked([_ext(16), f"{__name__}:Point", {"x": 1}]))
    assert made == Point(1, 0)
    with pytest.raises(DecodeError, match="no field 'z'"):
        data.loads(_marked([_ext(16), f"{__name__}:Point", {"x": 1, "z": 2}]))


def test_a_module_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trap = ModuleType("trap")
    trap.__dict__["__getattr__"] = lambda name: pytest.fail(f"the module was asked for {name}")
    monkeypatch.setitem(sys.modules, "trap", trap)
    assert loaded("trap:anything") is MISSING


# -- what is no data --------------------------------------------------------


class Plain:
    pass


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        Plain(),
        Plain,
        len,
        lambda: 1,
        Text("x"),
        threading.Lock(),
        memoryview(b""),
        ValueError(),
        np.array([object()]),
        np.zeros(2, "i4,f8"),
        np.ma.zeros(3),
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_data_is_named(value: Any) -> None:
    for nested in (value, [value], {"k": (value,)}, {(): {"k": [value]}}):
        with pytest.raises(CodecError, match="can't be sent as data") as failed:
            data.dumps(nested)
        assert "codec='pickle'" in str(failed.value) or "send a list" in str(failed.value)


def test_what_holds_itself_ends_with_an_error() -> None:
    one: list[Any] = []
    one += [one] * 3
    tree: dict[str, Any] = {"children": []}
    tree["children"] += [{"parent": tree} for _ in range(2000)]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (one, tree, deep):
        with pytest.raises(CodecError, match="too deep"):
            data.dumps(value)
    assert same(there_and_back(_nest(150)), _nest(150))


def _nest(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_a_wide_and_deep_value_is_looked_through_to_its_end() -> None:
    inner: list[Any] = [{"k": [n]} for n in range(3000)]
    assert same(there_and_back(inner), inner)
    inner[-1]["k"].append((1,))
    assert same(there_and_back(inner), inner)


# -- hostile bytes ----------------------------------------------------------


def _ext(code: int) -> msgpack.Ext:
    return msgpack.Ext(code, b"")


def _marked(value: Any) -> bytes:
    return msgpack.encode([_ext(0), value])


HOSTILE = {
    "nothing": b"",
    "cut": msgpack.encode([1, 2])[:-1],
    "more": msgpack.encode(1) + b"\x01",
    "long list": b"\xdd\xff\xff\xff\xff",
    "long map": b"\xdf\xff\xff\xff\xff",
    "long bytes": b"\xc6\xff\xff\xff\xff",
    "deep": b"\x91" * 100_000 + b"\x01",
    "deep map": b"\x81\x01" * 100_000 + b"\x01",
    "deep marked": _marked(None)[:-1] + b"\x91" * 100_000 + b"\x01",
    "deep sets": _marked(None)[:-1] + (b"\x92" + msgpack.encode(_ext(1))) * 900 + b"\x01",
    "mark alone": msgpack.encode(_ext(1)),
    "stray mark": _marked([1, _ext(1)]),
    "stray mark in a map": _marked({"a": _ext(1)}),
    "unknown mark": _marked([_ext(99), 1]),
    "negative mark": _marked([_ext(-7), 1]),
    "mark with data": msgpack.encode([msgpack.Ext(0, b"x"), 1]),
    "a set of lists": _marked([_ext(2), [1]]),
    "odd dictionary": _marked([_ext(4), 1]),
    "unhashable key": _marked([_ext(4), [], 1]),
    "array as key": _marked({"a": 1})[:-3] + b"\x92\x01\x02\x03",
    "bad text": _marked([_ext(7), "str"]),
    "bad time": _marked([_ext(8), "yesterday", 0, None]),
    "no fold": _marked([_ext(8), "2026-01-01T00:00:00", 7, None]),
    "huge time": _marked([_ext(11), 10**18, 0, 0]),
    "bad decimal": _marked([_ext(12), "one"]),
    "short uuid": _marked([_ext(13), b"x"]),
    "no member": _marked([_ext(15), f"{__name__}:Colour", "GREEN"]),
    "a member's attribute": _marked([_ext(15), f"{__name__}:Colour", "__class__"]),
    "wrong type": _marked([_ext(15), f"{__name__}:Point", "x"]),
    "fields in a list": _marked([_ext(16), f"{__name__}:Point", [1]]),
    "no such buffer": _marked([_ext(20), 0]),
    "negative buffer": _marked([_ext(20), -1]),
    "no mark's parts": _marked([_ext(15)]),
    "objects": _marked([_ext(18), "|O", "C", b"12345678", 1]),
    "object dtype": _marked([_ext(18), "O", "C", b"12345678", 1]),
    "structured": _marked([_ext(18), "i4,O", "C", b"123456781234", 1]),
    "no size": _marked([_ext(18), "|S0", "C", b"", 1 << 60]),
    "lengths": _marked([_ext(18), "<f8", "C", b"12345678", 2]),
    "bytes left over": _marked([_ext(18), "<f8", "C", b"12345678", 0]),
    "negative lengths": _marked([_ext(18), "<f8", "C", b"12345678", -1, -1]),
    "many dimensions": _marked([_ext(18), "<f8", "C", b"12345678", *[1] * 100]),
    "huge lengths": _marked([_ext(18), "<f8", "C", b"", 0, 1 << 62, 1 << 62]),
    "scalar": _marked([_ext(19), "<f8", b"1"]),
    "object scalar": _marked([_ext(19), "|O", b"12345678"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(DecodeError):
        data.loads(HOSTILE[name])
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["colorsys:ONE_THIRD", "antigravity:x", "this:s", "xml.dom:Node"])
def test_no_type_is_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name.partition(":")[0], raising=False)
    for code in (15, 16, 17):
        with pytest.raises(NotAllowedError):
            data.loads(_marked([_ext(code), name, {}]))
    assert name.partition(":")[0] not in sys.modules


def test_a_time_zone_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def zone_info(name: str) -> Any:
        asked.append(name)
        return UTC

    monkeypatch.setattr("genro_nats.codec.times.ZoneInfo", zone_info)
    for zone in ("../../etc/passwd", "/etc/passwd", "tzdata..os", "A" * 500, "Europe/../../x", "x\0"):
        made = data.loads(_marked([_ext(8), "2026-01-01T00:00:00+01:00", 0, zone]))
        assert made.utcoffset() == timedelta(hours=1)
    assert not asked
    data.loads(_marked([_ext(8), "2026-01-01T00:00:00+01:00", 0, "Europe/Rome"]))
    assert asked == ["Europe/Rome"]


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60), st.booleans(), st.lists(st.binary(max_size=16), max_size=2))
def test_any_bytes(tail: bytes, marked: bool, buffers: list[bytes]) -> None:
    with contextlib.suppress(DecodeError):
        data.loads((_marked(None)[:-1] if marked else b"") + tail, buffers)


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_mutated_bytes(value: Any, draw: st.DataObject) -> None:
    body, buffers = data.dumps([value, (1,)])
    changed = bytearray(body)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(0, len(body) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        data.loads(changed, buffers)


# -- which codec ------------------------------------------------------------


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return self.path.touch, ()


def test_who_takes_data_only_opens_no_pickle(tmp_path: Path) -> None:
    import pickle

    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    careful = Codecs(only_data=True, whose="pool 'p'")
    for load in (careful.loads, careful.load_error):
        with pytest.raises(NotAllowedError, match=r"pool 'p'.*codec='data'") as refused:
            load(0, trap)
        assert refused.value.reason == "pickle"
        with pytest.raises(DecodeError):
            load(Flag.DATA, trap)
    assert not mark.exists()
    Codecs().loads(0, trap)
    assert mark.exists(), "the trap is none"


def test_the_codec_of_an_answer_is_the_calls() -> None:
    assert codec_of(Flag.DATA | Flag.TASK) is DATA
    assert codec_of(Flag.TASK) is not DATA
    body, buffers = DATA.dumps({1, 2})
    assert Codecs().loads(Flag.DATA, body, buffers) == {1, 2}


def test_without_msgspec_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from genro_nats.codec import codecs

    def missing() -> ModuleType:
        raise CodecError('The data codec needs msgspec: pip install "genro-nats[data]".')

    monkeypatch.setattr(codecs, "_data", missing)
    with pytest.raises(CodecError, match=r"genro-nats\[data\]"):
        DATA.dumps(1)
    told = Codecs(only_data=True).load_error(Flag.DATA, DATA.dump_error(CodecError("no msgspec here")))
    assert "no msgspec here" in str(told)


def test_msgspec_is_asked_for_by_name() -> None:
    import subprocess

    code = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from genro_nats.codec.codecs import DATA\n"
        "try: DATA.dumps(1)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.startswith("CodecError")
    assert 'pip install "genro-nats[data]"' in done.stdout


def test_uuid_and_date_subclasses_are_no_data() -> None:
    class MyDate(date):
        pass

    class MyId(UUID):
        pass

    for value in (MyDate(2026, 1, 1), MyId(int=uuid4().int), Decimal("1") + 0):
        if type(value) is Decimal:
            assert there_and_back(value) == value
            continue
        with pytest.raises(CodecError, match="can't be sent as data"):
            data.dumps(value)
