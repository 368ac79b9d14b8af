"""Functions by value: what is pickled, under which digest, and what makes them be pickled anew."""

from __future__ import annotations

import functools
import gc
import hashlib
import struct
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy
import pytest

from genro_nats.codec import closure, modules, values
from genro_nats.codec.by_value import (
    FIELD_SIZE,
    INLINE,
    FunctionBlob,
    check_version,
    digest_in,
    digest_of,
    function_field,
    inline_field,
    opened_inline,
    pickled,
)
from genro_nats.codec.closure import trace
from genro_nats.codec.frame import HEADER_SIZE, NO_ID, Frame, FrameKind, decode, encode, peek
from genro_nats.codec.function_store import FunctionStore
from genro_nats.codec.functions import FunctionCache, goes_by_name, label
from genro_nats.codec.large_variables import large_variables
from genro_nats.codec.lru import ByteLRU
from genro_nats.errors import CodecError, DecodeError, FunctionNotFoundError, PythonVersionError
from genro_nats.executor.children.taught import Taught
from tests.executor import samples

PADDING = "p" * 2000


def opened(blob: FunctionBlob) -> Callable[..., Any]:
    cache = FunctionCache()
    cache.obey(decode(b"".join(bytes(part) for part in blob.parts))[0])
    return cache.by_digest(blob.digest, b"f")


def main_function(source: str, **given: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function ``f`` whose module is ``__main__``, and its globals."""
    there = {"__name__": "__main__", **given}
    exec(compile(source, "<main>", "exec", dont_inherit=True), there)
    return there["f"], there


# -- when it is pickled anew ------------------------------------------------------------------------


def test_pickled_once_as_long_as_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    store, held = FunctionStore(1 << 20), [1, {"a": b"x"}, (2, [3])]
    count = 0

    def counted(*args: Any, **given: Any) -> Any:
        nonlocal count
        count += 1
        return pickled(*args, **given)

    monkeypatch.setattr("genro_nats.codec.function_store.pickled", counted)

    def f() -> Any:
        return held, PADDING

    first = store.blob(f)
    assert all(store.blob(f) is first for _ in range(5))
    assert count == 1
    held[2][1].append(4)  # type: ignore[index]
    second = store.blob(f)
    assert count == 2
    assert second.digest != first.digest
    assert opened(second)()[0] == held
    held[2][1].pop()  # type: ignore[index]
    assert store.blob(f).digest == first.digest


class Holder:
    def __init__(self) -> None:
        self.items = [1]


class Slotted:
    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x = 1


class Pickles:
    """Says itself what its pickle is."""

    def __init__(self) -> None:
        self.hidden = 1

    def __reduce__(self) -> Any:
        return complex, (self.hidden, 0)


def test_every_sort_of_change_is_seen() -> None:
    array, long, holder = numpy.zeros(10), list(range(100)), Holder()
    slotted, pickles, part = Slotted(), Pickles(), functools.partial(max, 1, key=abs)
    letters, raw, many = {"a"}, bytearray(5), {n: n for n in range(100)}
    method = holder.items.append

    def inner(a: int = 1) -> int:
        return a

    class Local:
        x = 1

        def get(self) -> int:
            return self.x

        @property
        def prop(self) -> int:
            return 1

        @staticmethod
        def stat() -> int:
            return 1

    instance = Local()

    def f(*, option: Any = [1]) -> Any:  # noqa: B006
        return array, long, holder, slotted, pickles, part, letters, raw, many, method, inner, instance

    def renamed() -> int:
        return 2

    changes: list[Callable[[], Any]] = [
        lambda: array.__setitem__(3, 1),
        lambda: long.__setitem__(50, -1),
        lambda: holder.items.append(2),
        lambda: setattr(holder, "more", 1),
        lambda: setattr(slotted, "x", 2),
        lambda: setattr(pickles, "hidden", 2),
        lambda: part.keywords.update(default=3),
        lambda: letters.add("b"),
        lambda: raw.__setitem__(0, 1),
        lambda: many.__setitem__(5, -1),
        lambda: method(7),
        lambda: setattr(inner, "__defaults__", (2,)),
        lambda: setattr(inner, "__code__", renamed.__code__.replace(co_argcount=0)),
        lambda: setattr(Local, "x", 2),
        lambda: setattr(Local, "prop", property(lambda self: 2)),
        lambda: setattr(Local, "stat", staticmethod(lambda: 2)),
        lambda: setattr(instance, "y", 1),
        lambda: f.__kwdefaults__["option"].append(2),  # type: ignore[index]
        lambda: setattr(f, "mark", 1),
        lambda: setattr(f, "mark", 2),
        lambda: delattr(f, "mark"),
    ]
    missed = []
    for number, change in enumerate(changes):
        state = trace(f)
        assert state is not None, number
        assert state.holds(f), number
        change()
        if state.holds(f):
            missed.append(number)
    assert not missed


def test_globals_of_main_are_followed() -> None:
    f, there = main_function(
        "def g(): return K\nclass C:\n    def m(self): return g()\nK = 1\n"
        "def f(): return C().m() + (lambda: L)()\nL = 10"
    )
    for change, expected in (
        ("K = 2", 12),
        ("L = 20", 22),
        ("def g(): return 5", 25),
        ("class C:\n    def m(self): return 7", 27),
        ("C.m = lambda self: 8", 28),
    ):
        state = trace(f)
        assert state is not None
        assert state.holds(f)
        exec(change, there)
        assert not state.holds(f), change
        assert f() == expected


def test_classes_as_people_write_them() -> None:
    f, there = main_function(
        "import abc, dataclasses, enum\n"
        "class Colour(enum.Enum):\n    RED = 1\n    BLUE = 2\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int = 1\n    y: list = dataclasses.field(default_factory=list)\n"
        "class Base(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\n"
        "class Mine(Base):\n    def m(self): return super().m()\n"
        "def f(): return Colour.RED, Point(), Mine(), P"
    )
    there["P"] = there["Point"]()
    store = FunctionStore(1 << 20)
    digest = store.blob(f).digest
    state = trace(f)
    assert state is not None
    assert not state.opaque  # each of those would be pickled at each call
    assert state.holds(f)
    assert store.blob(f).digest == digest
    there["P"].y.append(1)
    assert not state.holds(f)
    assert store.blob(f).digest != digest


def test_decorated_functions_of_a_module_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up")
    module.__dict__["pool"] = samples.first
    exec("@pool\ndef g(): return 5\ndef f(): return g.local()", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    blob = FunctionStore(1 << 20).blob(module.f, stated=True)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert opened(blob)() == 5


def test_a_global_that_appears_later_is_seen() -> None:
    f, there = main_function("def f(): return len('abc')")
    store = FunctionStore(1 << 20)
    assert opened(store.blob(f))() == 3
    there["len"] = lambda text: -1
    assert opened(store.blob(f))() == -1


def test_what_is_found_by_name_is_not_looked_into() -> None:
    assert samples.inc is not None

    def f() -> Any:
        return samples.inc, label, Holder, sys, numpy.zeros, len

    state = trace(f)
    assert state is not None
    assert len(state.functions) == 1


def test_a_large_value_counts_as_unchanged_until_it_is_bound_anew() -> None:
    array, many = numpy.zeros(200_000), [float(n) for n in range(300_000)]

    def f() -> Any:
        return array, many

    state = trace(f)
    assert state is not None
    assert len(state.large) == 2
    array[5] = 1
    many[5] = 1.5
    assert state.holds(f)  # as the warning says
    many.append(1.0)
    assert not state.holds(f)
    state = trace(f)
    array = numpy.zeros(200_000)
    assert state is not None
    assert not state.holds(f)


def test_what_can_not_be_told_is_pickled_each_time() -> None:
    module = types.ModuleType("made_up")
    module.value = 1  # type: ignore[attr-defined]

    def f() -> Any:
        return module.value, PADDING

    store = FunctionStore(1 << 20)
    assert trace(f) is None
    assert opened(store.blob(f))()[0] == 1
    module.value = 2  # type: ignore[attr-defined]
    assert opened(store.blob(f))()[0] == 2


def test_something_of_every_item_of_a_deep_structure() -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]

    def f() -> Any:
        return deep

    assert trace(f) is None
    with pytest.raises(CodecError, match=r"test_something.*can't be sent"):
        FunctionStore(1 << 20).blob(f)


def test_what_can_not_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(CodecError, match=r"<lambda> can't be sent: .*lock.*importable module"):
        FunctionStore(1 << 20).blob(lambda: lock)


def test_the_variable_that_can_not_be_pickled_is_named() -> None:
    lock, fine = threading.Lock(), 1
    g, _ = main_function("def h(): return held.fine\ndef f(): return h()", held=[lock], fine=lock)
    cached = functools.cache(lambda: (fine, lock))
    holder = Holder()
    holder.items.append(lock)  # type: ignore[arg-type]

    def with_default(x: Any = fine, *, y: Any = lock) -> Any:
        return x, y

    cases: list[tuple[Callable[..., Any], str, str]] = [
        (lambda: (fine, lock), "lock", "lock"),
        (lambda: g, "held", "list"),
        (cached, "lock", "lock"),
        (with_default, "y", "lock"),
        (functools.partial(print, 1, lock), r"args\[1\]", "lock"),
        (lambda: cached() and g, "held|lock", "list|lock"),
        (holder.__init__, "items", "list"),  # type: ignore[misc]
    ]
    for function, variable, kind in cases:
        with pytest.raises(
            CodecError,
            match=rf"^The variable '({variable})' of the function \S+ can't be sent: ({kind}) can't be pickled: "
            r"TypeError: cannot pickle '_thread.lock' object\. Define the function at the top of an importable",
        ) as caught:
            FunctionStore(1 << 20).blob(function)
        assert caught.value.variable in caught.value.args[0]
        assert caught.value.function


# -- what reduces to a name -----------------------------------------------------------------------

CACHED = """
import functools, typing
@functools.cache
def memo(n): return n if n < 2 else memo(n - 1) + memo(n - 2)
memo.mark = 7
class C:
    @functools.lru_cache(maxsize=3, typed=True)
    def m(self, x): return x
    @functools.cached_property
    def prop(self): return K
K = 1
def f(): return memo(9), memo.mark, memo.__name__, C().m(3), C.m.cache_parameters(), C().prop
"""


def test_cached_functions_go_by_value() -> None:
    f, there = main_function(CACHED)
    found = opened(FunctionStore(1 << 20).blob(f))()
    assert found == (34, 7, "memo", 3, {"maxsize": 3, "typed": True}, 1)
    state = trace(f)
    assert state is not None
    assert state.holds(f)
    assert not state.opaque  # each of those would be pickled at each call
    exec("def g(): return 5", there)
    there["memo"].__wrapped__.__code__ = there["g"].__code__.replace(co_argcount=0)
    assert not state.holds(f)


def test_a_cached_function_is_called_sent_and_let_go() -> None:
    f, there = main_function(CACHED.replace("def f()", "def g()") + "f = memo")
    store, alive = FunctionStore(1 << 20), weakref.ref(f)
    blob = store.blob(f)
    assert store.blob(f) is blob
    again = opened(blob)
    assert (again(20), again.cache_info().currsize, again.mark) == (6765, 21, 7)  # type: ignore[attr-defined]
    body, buffers = values.dumps({"argument": f})
    assert values.loads(body, buffers)["argument"](10) == 55
    there.clear()
    del f
    gc.collect()
    assert alive() is None


def test_names_of_types_go_by_value() -> None:
    f, there = main_function(
        "import typing\nUserId = typing.NewType('UserId', int)\nT = typing.TypeVar('T', bound=UserId)\n"
        "P = typing.ParamSpec('P')\nTs = typing.TypeVarTuple('Ts')\n"
        "def f(x: UserId, y: T = 0, z: typing.Callable[P, int] = len, *more: Ts): return UserId(x), f"
    )
    found = opened(FunctionStore(1 << 20).blob(f))
    value, again = found(5)
    assert (value, again) == (5, found)
    name = found.__annotations__["x"]
    assert (name.__name__, name.__supertype__, name.__module__) == ("UserId", int, "__main__")
    assert found.__annotations__["y"].__bound__.__name__ == "UserId"
    state = trace(f)
    assert state is not None
    assert not state.opaque
    there["UserId"] = there["T"]
    assert not state.holds(f)


def test_names_within_importable_modules_stay_names() -> None:
    for value in (samples.memo, samples.UserId):
        body, _ = values.dumps((value, lambda: 1))  # by cloudpickle
        assert values.loads(body)[0] is value


@pytest.mark.parametrize("registered", [True, False])
def test_cached_functions_of_a_module_by_value(monkeypatch: pytest.MonkeyPatch, registered: bool) -> None:
    module = types.ModuleType("made_up")
    exec(CACHED + "UserId = typing.NewType('UserId', int)\ndef g(x: UserId): return memo(x)", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        blob = FunctionStore(1 << 20).blob(module.g, stated=not registered)
    finally:
        if registered:
            cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert opened(blob)(10) == 55


class Named:
    """Pickles as a name."""

    def __reduce__(self) -> str:
        return "NAMED"


def test_what_could_only_go_by_a_name_of_main_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    main: Any = sys.modules["__main__"]
    named = Named()
    monkeypatch.setattr(Named, "__module__", "__main__")
    monkeypatch.setattr(main, "NAMED", named, raising=False)
    store, wanted = FunctionStore(1 << 20), r"'NAMED' of the main program, a Named, .*importable module"
    for function in (lambda: named, lambda: [named], functools.partial(len, [named])):
        with pytest.raises(CodecError, match=r"can't be sent: .*" + wanted + " and import it from there.$"):
            store.blob(function)
    for value in (named, {"k": [named]}):
        with pytest.raises(CodecError, match=wanted):
            values.dumps(value)
        with pytest.raises(CodecError, match=wanted):
            values.dumps_call((value,), {})
    with pytest.raises(CodecError, match="module of the main program"):
        store.blob(lambda: main)


# -- what is pickled ------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_frame() -> None:
    array = numpy.arange(50_000)

    def f() -> Any:
        return array, PADDING

    blob = FunctionStore(1 << 20).blob(f)
    data = b"".join(bytes(part) for part in blob.parts)
    head = peek(data)
    assert (head.kind, head.n_buffers, len(data)) == (FrameKind.FUNCTION, 1, blob.size)
    rest = data[HEADER_SIZE + head.n_name :]
    assert hashlib.sha256(struct.pack("!HQ", head.n_buffers, head.n_body) + rest).digest() == blob.digest
    assert digest_of(data, head) == blob.digest
    assert data[HEADER_SIZE : HEADER_SIZE + 64] == blob.digest.hex().encode()
    call = Frame(FrameKind.CALL, name=b"x", meta=blob.field + b"{}", body=b"body", buffers=[b"more"])
    data = encode(call)
    assert function_field(data, peek(data)) == (bytes(sys.version_info[:2]), blob.size, blob.digest)
    assert digest_in(call.meta) == blob.digest
    assert bytes(blob.answer(b"i" * 16)[0][-16:]) == b"i" * 16


def test_the_same_bytes_cut_otherwise_have_another_digest() -> None:
    one = FunctionBlob(b"body", [b"tail"])
    rest = b"".join(bytes(part) for part in one.parts[2:])
    assert FunctionBlob(rest, []).digest != one.digest


def test_the_pickle_does_not_change_with_the_caller_s_array() -> None:
    array = numpy.zeros(50_000)
    blob = FunctionStore(1 << 20).blob(lambda: array)
    array[0] = 1
    found = opened(blob)()
    assert found[0] == 0
    found[1] = 5  # writable there
    data = b"".join(bytes(part) for part in blob.parts)
    assert digest_of(data, peek(data)) == blob.digest


def test_small_ones_travel_inline() -> None:
    store = FunctionStore(1 << 20)
    small = store.blob(lambda x: x + 1)
    assert small.inline is not None
    assert cloudpickle.loads(opened_inline(small.inline, "f"))(1) == 2
    assert len(small.inline) <= INLINE + 2
    assert store.blob(lambda: PADDING).inline is None or len(PADDING) < INLINE
    padding = PADDING
    assert store.blob(lambda: padding).inline is None


def test_a_field_that_is_too_short() -> None:
    data = encode(Frame(FrameKind.CALL, meta=bytes(FIELD_SIZE - 1), body=bytes(100)))
    with pytest.raises(DecodeError, match="without the digest"):
        function_field(data, peek(data))


def test_another_minor_version_of_python() -> None:
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(
        PythonVersionError, match=rf"f .* Python 3\.99; this worker runs Python {ours}"
    ) as caught:
        check_version(bytes((3, 99)), "f")
    assert (caught.value.caller, caught.value.worker) == ("3.99", ours)
    with pytest.raises(PythonVersionError):
        opened_inline(bytes((2, 7)) + b"pickle", "f")
    assert opened_inline(inline_field(b"pickle"), "f") == b"pickle"


def test_by_name_and_by_value() -> None:
    assert goes_by_name(label, None)
    assert not goes_by_name(label, "value")
    assert not goes_by_name(lambda: 1, None)
    with pytest.raises(CodecError, match="by name"):
        goes_by_name(lambda: 1, "name")


def test_the_main_program_of_a_spawned_process_is_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("__mp_main__")
    exec("class C:\n    x = 5\ndef g(): return C\ndef f(): return g()().x", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert not goes_by_name(module.f, None)
    with pytest.raises(CodecError, match="by name"):
        goes_by_name(module.f, "name")
    blob, (body, _) = FunctionStore(1 << 20).blob(module.f), values.dumps([module.C()])
    state = trace(module.f)
    assert not modules.by_value_modules()
    monkeypatch.delitem(sys.modules, module.__name__)
    assert opened(blob)() == 5
    assert values.loads(body)[0].x == 5
    assert state is not None
    module.C.x = 6
    assert not state.holds(module.f)


def test_a_registered_module_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = types.ModuleType("made_up_package"), types.ModuleType("made_up_package.part")
    exec("def f(): return g()\ndef g(): return 5", module.__dict__)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert goes_by_name(module.f, None)
    cloudpickle.register_pickle_by_value(package)
    try:
        assert not goes_by_name(module.f, None)
        blob = FunctionStore(1 << 20).blob(module.f)
    finally:
        cloudpickle.unregister_pickle_by_value(package)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert opened(blob)() == 5


def test_by_value_takes_its_own_module_along(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up")
    exec("def f(): return g().x\ndef g(): return C()\nclass C:\n    x = 5", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    store = FunctionStore(1 << 20)
    blob = store.blob(module.f, stated=True)
    assert not modules.by_value_modules()
    module.C.x = 6
    changed = store.blob(module.f, stated=True)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert opened(blob)() == 5
    assert opened(changed)() == 6


def test_who_registered_a_module_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)
    try:
        FunctionStore(1 << 20).blob(module.f, stated=True)
        assert modules.by_value_modules() == {"made_up"}
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_another_thread_s_pickling_does_not_change_how_a_function_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("made_up")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found: list[bool] = []
    with modules.as_by_value("made_up"):
        assert not goes_by_name(module.f, None)
        asking = threading.Thread(target=lambda: found.append(goes_by_name(module.f, "name")))
        asking.start()
        asking.join(0.05)
        assert not found
    asking.join(10)
    assert found == [True]


# -- the warning ----------------------------------------------------------------------------------


def test_a_warning_names_the_variable_once() -> None:
    table, small = bytes(2_000_000), 1

    def make() -> Callable[..., Any]:
        def f(x: Any = small) -> Any:
            return table, x

        return f

    store = FunctionStore(1 << 24)
    with pytest.warns(
        UserWarning, match=r"make\.<locals>\.f is sent by value with 'table' \(2,000,000 bytes\)"
    ):
        store.blob(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.blob(make())
        table = bytes(2_000_001)
        store.blob(make())


def test_a_warning_shows_the_function() -> None:
    table = bytes(2_000_000)

    def f() -> Any:
        return table

    class Called:
        def __init__(self) -> None:
            self.table = table

        def __call__(self) -> Any: ...

    line = f.__code__.co_firstlineno
    called = Called.__call__.__code__.co_firstlineno
    for make, expected in (
        (lambda: f, line),
        (lambda: functools.partial(functools.cache(f)), line),
        (Called, called),
        (lambda: functools.partial(len, table), 0),  # the line that sends it
    ):
        store = FunctionStore(1 << 24)
        with pytest.warns(UserWarning, match="2,000,000 bytes") as found:
            store.blob(make())
        assert [one.filename for one in found] == [__file__]
        assert expected in (found[0].lineno, 0)


def test_where_large_variables_are_found() -> None:
    big, huge = bytes(1_500_000), numpy.zeros(200_000)

    def helper() -> Any:
        return big

    def f(default: Any = huge) -> Any:
        return helper(), default

    found = large_variables(f)
    assert set(found) == {"big", "default"}
    assert found["big"] == 1_500_000
    assert found["default"] > 1_600_000
    g, _ = main_function("def f(): return table", table=bytes(1_200_000))
    assert large_variables(g) == {"table": 1_200_000}
    parts = {name: bytes(size) for name, size in (("a", 400_000), ("b", 500_000), ("c", 300_000), ("d", 10))}
    g, _ = main_function("def f(): return a, b, c, d", **parts)
    assert large_variables(g) == {"b": 500_000, "a": 400_000, "c": 300_000}
    with pytest.warns(UserWarning, match=r"'b' \(500,000 bytes\), 'a' .* again when one of them changes"):
        FunctionStore(1 << 24).blob(g)
    g, _ = main_function("def f(): return a, b", a=bytes(400_000), b=bytes(500_000))
    assert large_variables(g) == {}
    holder = Holder()
    holder.items = [big]  # type: ignore[list-item]
    assert set(large_variables(holder.__init__)) == {"items"}  # type: ignore[misc]
    assert set(large_variables(functools.partial(f, big))) >= {"args[0]", "big", "default"}


# -- what is kept ---------------------------------------------------------------------------------


def test_functions_that_are_gone_are_not_kept() -> None:
    store = FunctionStore(1 << 24)

    def make(size: int) -> Callable[..., Any]:
        data = bytes(size)

        def f(n: int = 0) -> Any:
            return data, f if n else None

        return f

    function = make(100_000)
    blob = weakref.ref(store.blob(function))
    alive = weakref.ref(function)
    digest = blob().digest  # type: ignore[union-attr]
    assert store.find(digest) is blob()
    del function
    gc.collect()
    assert alive() is None  # though it refers to itself
    store.blob(lambda: 1)
    gc.collect()
    assert blob() is None
    assert store.find(digest) is None


def test_the_store_keeps_so_many_bytes() -> None:
    store, datas = FunctionStore(50_000), [bytes([n]) * 20_000 for n in range(4)]
    functions = [lambda data=data: data for data in datas]
    digests = [store.blob(f).digest for f in functions]
    gc.collect()
    assert [store.find(digest) is not None for digest in digests] == [False, False, True, True]
    held = store.blob(functions[0])
    for f in functions[1:]:
        store.blob(f)
    assert store.find(digests[0]) is held  # somebody's call may be asked for it


def test_an_lru_of_bytes() -> None:
    lru: ByteLRU[str, int] = ByteLRU(10)
    for key, size in (("a", 4), ("b", 4)):
        lru.put(key, size, size)
    assert lru.get("a") == 4
    lru.put("c", 4, 4)
    assert (list(lru), lru.size, lru.get("b")) == (["a", "c"], 8, None)
    lru.put("d", 40, 40)
    assert (list(lru), lru.size) == (["d"], 40)
    lru.put("d", 1, 1)
    assert (lru.size, lru.pop("d"), lru.pop("d"), lru.size, len(lru)) == (1, 1, None, 0, 0)


def test_what_a_child_is_taught_and_may_forget() -> None:
    blobs = [FunctionBlob(bytes([n]) * 1000, []) for n in range(4)]
    taught = Taught(2500)
    for blob in blobs[:2]:
        assert not taught.has(blob.digest)
        assert list(taught.lesson(blob, ())) == [blob.parts]
        assert taught.has(blob.digest)
    told, gone = list(taught.lesson(blobs[2], {blobs[0].digest}))
    frame, _ = decode(b"".join(gone))  # type: ignore[arg-type]
    assert told == blobs[2].parts
    assert (frame.kind, frame.name) == (FrameKind.GONE, blobs[1].digest.hex().encode())
    assert [taught.has(blob.digest) for blob in blobs] == [True, False, True, False]
    assert (
        len(list(taught.lesson(blobs[3], {blob.digest for blob in blobs}))) == 1
    )  # all are needed: none goes


def test_a_child_forgets_what_it_is_told_to() -> None:
    cache, blob = FunctionCache(), FunctionStore(1 << 20).blob(lambda: PADDING)
    with pytest.raises(FunctionNotFoundError, match="f, sent by value, has not reached"):
        cache.by_digest(blob.digest, b"f")
    cache.obey(decode(b"".join(bytes(part) for part in blob.parts))[0])
    assert cache.by_digest(blob.digest, b"f") is cache.by_digest(blob.digest, b"f")
    cache.obey(Frame(FrameKind.GONE, NO_ID, blob.digest.hex().encode()))
    with pytest.raises(FunctionNotFoundError):
        cache.by_digest(blob.digest, b"f")


def test_threads_open_it_once() -> None:
    opened_count: list[int] = []

    class Slow:
        def __reduce__(self) -> Any:
            return _slow, (id(opened_count),)

    slow = Slow()
    blob = FunctionStore(1 << 20).blob(lambda: (slow, PADDING))
    cache = FunctionCache()
    cache.obey(decode(b"".join(bytes(part) for part in blob.parts))[0])
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.by_digest(blob.digest, b"f"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


def _slow(_: int) -> int:
    threading.Event().wait(0.05)
    return 1


def test_the_limits_are_what_the_documents_say() -> None:
    assert closure.LARGE == 1_000_000
    assert INLINE == 1024
