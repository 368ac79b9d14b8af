"""Exceptions as structure, of both codecs: what survives, what comes as RemoteError, and what never runs."""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genro_nats import CodecError, DecodeError, ExecutorOverloadError, RemoteError, RemoteTraceback
from genro_nats.codec import data
from genro_nats.codec.codecs import DATA, PICKLE, Codec, Codecs
from genro_nats.codec.error_text import MAX_TEXT
from genro_nats.codec.exceptions import MAX_NODES
from genro_nats.codec.frame import Flag
from tests.faults import lying

RAN: list[str] = []


class Fussy(Exception):
    """Its ``__init__`` and ``__new__`` are never to be run by who receives it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Fussy:
        RAN.append("new")
        return super().__new__(cls)

    def __init__(self, *, code: int) -> None:
        RAN.append("init")
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> Any:
        return RAN.append, ("reduced",)

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("setattr")
        super().__setattr__(name, value)


class Group(ExceptionGroup[Exception]):
    pass


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Holds(Exception):
    pass


class Slotted(OSError):
    __slots__ = ("_code", "args", "unset")

    def __init__(self, code: object) -> None:
        super().__init__(2, "gone", "/x")
        self._code = code


class Below(Slotted):
    __slots__ = ("__private",)

    def __init__(self, code: object, private: object) -> None:
        super().__init__(code)
        self.__private = private
        self.more = "in its dictionary"

    @property
    def private(self) -> object:
        return self.__private


@pytest.fixture(params=[PICKLE, DATA], ids=["pickle", "data"])
def travel(request: pytest.FixtureRequest) -> Callable[[BaseException], BaseException]:
    """An exception as the other side has it."""
    codec: Codec = request.param

    def there(error: BaseException) -> BaseException:
        return Codecs(only_data=codec is DATA).load_error(codec.flag, codec.dump_error(error))

    return there


Travel = Callable[[BaseException], BaseException]


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def test_type_arguments_state_notes_and_traceback(travel: Travel) -> None:
    def fail() -> None:
        error = ValueError("outer", 42, (1, {2}), b"x")
        error.add_note("a note")
        error.__dict__["more"] = {"k": (1,)}
        raise error

    found: Any = travel(raised(fail))
    assert type(found) is ValueError
    assert found.args == ("outer", 42, (1, {2}), b"x")
    assert found.__notes__ == ["a note"]
    assert found.__dict__["more"] == {"k": (1,)}
    assert isinstance(found.__cause__, RemoteTraceback)
    assert "in fail" in found.__cause__.text


def test_nothing_of_the_users_runs(travel: Travel) -> None:
    error = Fussy(code=7)
    RAN.clear()
    found = travel(error)
    assert type(found) is Fussy
    assert (found.args, found.code) == (("code 7",), 7)
    assert not RAN


def test_errors_of_the_operating_system_and_of_imports(travel: Travel) -> None:
    found: Any = travel(raised(lambda: Path("/no/such/file").read_bytes()))
    assert type(found) is FileNotFoundError
    assert (found.errno, found.filename) == (2, "/no/such/file")
    found = travel(ImportError("gone", name="ghost", path="/x"))
    assert (found.name, found.path) == ("ghost", "/x")
    found = travel(raised(b"\xff".decode))
    assert type(found) is UnicodeDecodeError and found.object == b"\xff"


def test_our_own_errors_keep_their_fields(travel: Travel) -> None:
    found: Any = travel(ExecutorOverloadError("full", executor="p", retry_after=1.5))
    assert type(found) is ExecutorOverloadError
    assert (found.executor, found.retry_after, found.retryable) == ("p", 1.5, True)


def test_causes_and_contexts(travel: Travel) -> None:
    def deep() -> None:
        raise KeyError("inner")

    def outer() -> None:
        try:
            deep()
        except KeyError as error:
            try:
                raise TypeError("middle")
            except TypeError:
                raise ValueError("outer") from error

    found = travel(raised(outer))
    assert isinstance(found.__cause__, KeyError) and isinstance(found.__context__, TypeError)
    assert found.__suppress_context__
    assert isinstance(found.__context__.__context__, KeyError)
    assert found.__context__.__context__ is found.__cause__
    assert isinstance(found.__cause__.__cause__, RemoteTraceback)


def test_groups_within_groups(travel: Travel) -> None:
    inner = Group("inner", [ValueError(1), KeyError("k")])
    inner.add_note("noted")
    shared = OSError(2, "x")
    outer = ExceptionGroup("outer", [inner, shared, ExceptionGroup("third", [shared])])
    outer.__cause__ = inner
    found: Any = travel(outer)
    assert type(found) is ExceptionGroup and found.message == "outer"
    one, two, three = found.exceptions
    assert type(one) is Group and one.message == "inner" and one.__notes__ == ["noted"]
    assert [type(e) for e in one.exceptions] == [ValueError, KeyError]
    assert found.__cause__ is one
    assert three.exceptions[0] is two


def test_what_cannot_be_rebuilt(travel: Travel) -> None:
    error = Holds("has a lock", threading.Lock())
    error.add_note("look here")
    error.__cause__ = ValueError("cause")
    found: Any = travel(raised(lambda: (_ for _ in ()).throw(error)))
    assert type(found) is RemoteError
    assert found.type_name == f"{__name__}:Holds"
    assert "has a lock" in found.text and "throw" in found.traceback
    assert found.__notes__ == ["look here"]
    assert isinstance(found.__cause__, ValueError)


def test_a_type_that_the_receiver_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = ModuleType("ghost_errors")
    exec("class Gone(Exception): pass", ghost.__dict__)
    monkeypatch.setitem(sys.modules, "ghost_errors", ghost)
    error = ghost.Gone("text")
    for codec in (PICKLE, DATA):
        body = codec.dump_error(error)
        monkeypatch.delitem(sys.modules, "ghost_errors")
        found: Any = Codecs(only_data=codec is DATA).load_error(codec.flag, body)
        monkeypatch.setitem(sys.modules, "ghost_errors", ghost)
        assert type(found) is RemoteError
        assert (found.type_name, found.text) == ("ghost_errors:Gone", "text")


def test_what_would_end_a_process(travel: Travel) -> None:
    for error in (SystemExit(3), KeyboardInterrupt("x"), GeneratorExit()):
        found: Any = travel(error)
        assert type(found) is RemoteError
        assert found.type_name == f"builtins:{type(error).__name__}"


def test_odd_exceptions(travel: Travel) -> None:
    assert type(travel(Broken())) is Broken
    text: Any = travel(ValueError("\ud800"))
    assert text.args == ("\ud800",)
    long: Any = travel(Holds("x" * 10 * MAX_TEXT, threading.Lock()))
    assert len(long.text) < MAX_TEXT + 100


def test_long_chains(travel: Travel) -> None:
    error = first = ValueError(0)
    for n in range(1, 3 * MAX_NODES):
        error.__cause__ = error = ValueError(n)
    count = 0
    link: BaseException | None = travel(first)
    while link is not None:
        link, count = link.__cause__, count + 1
    assert count == MAX_NODES + 1  # and the traceback


def notes_of(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def test_a_group_says_how_many_members_it_lost(travel: Travel) -> None:
    group = ExceptionGroup("many", [ValueError(n) for n in range(150)])
    group.add_note("its own")
    found: Any = travel(group)
    assert [error.args for error in found.exceptions] == [(n,) for n in range(MAX_NODES - 1)]
    assert notes_of(found) == ["its own", "51 more exceptions were left out (limit 100)"]
    assert notes_of(group) == ["its own"]
    whole: Any = travel(ExceptionGroup("few", [ValueError(n) for n in range(MAX_NODES - 1)]))
    assert (len(whole.exceptions), notes_of(whole)) == (MAX_NODES - 1, [])


def test_groups_within_groups_say_what_each_lost(travel: Travel) -> None:
    inner = Group("inner", [ValueError(n) for n in range(98)])
    found: Any = travel(ExceptionGroup("outer", [inner, Group("empty", [ValueError("x")])]))
    assert notes_of(found) == ["1 more exception was left out (limit 100)"]
    assert len(found.exceptions[0].exceptions) == 98 and notes_of(found.exceptions[0]) == []
    last: Any = travel(ExceptionGroup("outer", [*map(ValueError, range(98)), inner])).exceptions[-1]  # type: ignore[attr-defined]
    assert type(last) is RemoteError and "none of its members could be sent" in str(last)
    assert notes_of(last) == ["98 more exceptions were left out (limit 100)"]
    lost: Any = travel(Group("many", [ValueError(n, threading.Lock()) for n in range(150)]))
    assert "51 more exceptions were left out (limit 100)" in notes_of(lost)


def test_slots(travel: Travel) -> None:
    found: Any = travel(Below({"k": 1}, (2,)))
    assert type(found) is Below
    assert (found._code, found.private, found.more) == ({"k": 1}, (2,), "in its dictionary")
    assert (found.errno, found.filename) == (2, "/x")
    assert not hasattr(found, "unset") and "_code" not in vars(found)
    lost: Any = travel(Slotted(threading.Lock()))
    assert type(lost) is RemoteError and "arguments or state could not be sent" in str(lost)


@pytest.mark.parametrize("kind", lying.KINDS)
def test_whatever_its_class_does_it_is_told(travel: Travel, kind: str) -> None:
    error = raised(lambda: lying.fail(kind))
    found: Any = travel(error)
    assert lying.arrived(kind, found)
    assert "in fail" in vars(BaseException)["__cause__"].__get__(found).text


@pytest.mark.parametrize("kind", lying.KINDS)
def test_it_is_told_as_a_member_and_as_a_cause_too(travel: Travel, kind: str) -> None:
    odd: Any = lying.KINDS[kind]()
    found: Any = travel(ExceptionGroup("g", [odd, ValueError(1)]))
    assert lying.arrived(kind, found.exceptions[0]) and type(found.exceptions[1]) is ValueError
    error = ValueError("x")
    error.__cause__ = lying.KINDS[kind]()
    assert lying.arrived(kind, travel(error).__cause__)


def test_a_class_of_the_main_program_travels_only_in_pickles() -> None:
    class Local(Exception):
        pass

    found = Codecs().load_error(0, PICKLE.dump_error(Local(1)))
    assert type(found).__name__ == "Local" and found.args == (1,)
    lost: Any = Codecs().load_error(Flag.DATA, DATA.dump_error(Local(1)))
    assert type(lost) is RemoteError and "Local" in lost.type_name


def test_a_traceback_of_what_hides_it(travel: Travel) -> None:
    found: Any = travel(raised(lambda: lying.fail("__traceback__")))
    assert found.traceback.startswith("Traceback (most recent call last):")
    assert "in fail" in found.traceback


# -- what hostile senders say -------------------------------------------------


def node(**changed: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "type": "builtins:ValueError",
        "class": None,
        "args": data.dumps((1,))[0],
        "text": "t",
    }
    fields |= {"state": data.dumps(None)[0], "suppress": False, "notes": [], "group": [], "cause": None}
    return {**fields, "context": None, **changed}


def told(*nodes: dict[str, Any], traceback: Any = "tb") -> BaseException:
    body = data.dumps_whole({"nodes": list(nodes), "traceback": traceback})
    return Codecs(only_data=True).load_error(Flag.DATA, body)


@pytest.mark.parametrize(
    "name",
    ["subprocess:Popen", "os:system", "antigravity:x", "colorsys:rgb_to_hls", "builtins:eval", "x", ""],
)
def test_only_exception_types_of_imported_modules(name: str) -> None:
    before = set(sys.modules)
    found: Any = told(node(type=name))
    assert type(found) is RemoteError and found.type_name == name
    assert set(sys.modules) == before


def test_a_class_is_never_unpickled_in_data(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    for part in ("class", "args", "state"):
        told(node(**{part: trap}))
    assert not mark.exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return self.path.touch, ()


WRONG: list[Any] = [
    [],
    [1],
    [node(cause=5)],
    [node(cause="x")],
    [node(type=5)],
    [node(notes=[5], args=None)],
    [node(group=[0])],
    [node(group=[1]), node(group=[0])],
    [node(group=5)],
    [node(group=["x"])],
    [node(suppress="maybe")],
    [{}],
    [node()] * (MAX_NODES + 1),
]


@pytest.mark.parametrize("nodes", WRONG, ids=range(len(WRONG)))
def test_wrong_structures(nodes: Any) -> None:
    with pytest.raises(DecodeError):
        told(*nodes)


@pytest.mark.parametrize("body", [b"{", b"{}", b"[", b"", b"\x01", json.dumps({"nodes": 5}).encode()])
def test_no_structure_at_all(body: bytes) -> None:
    with pytest.raises(DecodeError):
        Codecs(only_data=True).load_error(Flag.DATA, body)


def test_circles_end() -> None:
    found = told(node(cause=1, context=0), node(cause=0, context=1))
    assert isinstance(found, ValueError)


def test_state_is_only_data() -> None:
    for state in ({"__class__": 5}, {"__cause__": 5}, {"args": 5}, [1], "x"):
        assert isinstance(told(node(state=data.dumps(state)[0])), RemoteError | ValueError)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes(body: bytes) -> None:
    with contextlib.suppress(CodecError):
        Codecs(only_data=True).load_error(Flag.DATA, body)
