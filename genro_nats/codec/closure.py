"""What a function's pickle depends on, looked at again before each call: has it changed?

The walk goes where the pickle would: code, defaults, cells, the globals that the code names, and on through
functions, classes, instances, tuples and small containers that go by value. What can't change is compared by
identity. Anything else (a longer list, an array, an object that pickles itself) is pickled anew and compared by
digest, unless that takes more than 1 MB: then only its identity and its extent are compared, because a look at all
of it would cost more than the call. The warning about such closures says so.
"""

from __future__ import annotations

import copyreg
import datetime
import decimal
import functools
import hashlib
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from typing import Any, Final

from genro_nats.codec import values
from genro_nats.codec.by_value import pickled
from genro_nats.errors import CodecError

__all__ = ["LARGE", "Trace", "large_variables", "trace"]

LARGE: Final = 1_000_000  # bytes of one variable, pickled, from which on it is not looked into
_SHORT: Final = 64  # items of a container that are looked at one by one
_MOST: Final = 5_000  # things looked at; a function that depends on more is pickled at each call
_HEAP: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement
_ATOMS: Final = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented)),
        *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
        *(types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType),
    }
)
_UNSEEN: Final = frozenset(  # of a class: not pickled, or changed by pickling
    {"__dict__", "__weakref__", "__slotnames__", "_abc_impl", "__doc__", "__annotations__", "__module__"}
)
_EMPTY: Final = object()
_ROOT: Final = object()
_NO_LARGE: Final[Mapping[int, Any]] = {}


class Trace:
    """What a walk came across: ``objects`` to be compared by identity, ``facts`` by value.

    ``large``: those, by id, that are not looked into. All are held, so that no id is used twice.
    """

    __slots__ = ("facts", "large", "objects")

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.facts: list[Any] = []
        self.large: dict[int, Any] = {}

    def holds(self, function: Callable[..., Any], module: str) -> bool:
        """Is everything still as it was?"""
        now = trace(function, module, self.large)
        return (
            now is not None
            and len(now.objects) == len(self.objects)
            and all(map(is_, now.objects, self.objects))
            and now.facts == self.facts
        )


def trace(
    function: Callable[..., Any], module: str = "", large: Mapping[int, Any] = _NO_LARGE
) -> Trace | None:
    """All that the function depends on; None where that can't be told more cheaply than by pickling it.

    ``module``: what lives there goes by value too. ``large``: what an earlier look found to be so.
    """
    walk = _Walk(function, module, large)
    try:
        walk.into(function)
    except (_TooMuchError, CodecError, RecursionError, RuntimeError):  # or changed while it was looked at
        return None
    return walk.trace


class _TooMuchError(Exception):
    pass


class _Walk:
    def __init__(self, root: Any, module: str, large: Mapping[int, Any]) -> None:
        self.trace = Trace()
        self._root = root
        self._module = module
        self._large = large
        self._seen: set[int] = set()

    def value(self, x: Any) -> None:
        """Look at one thing, and into it if it may change."""
        objects = self.trace.objects
        if x is self._root:
            objects.append(_ROOT)  # not itself: it would never be let go
            return
        objects.append(x)
        if type(x) in _ATOMS or id(x) in self._seen:
            return
        if len(objects) > _MOST:
            raise _TooMuchError
        self._seen.add(id(x))
        self.into(x)

    def into(self, x: Any) -> None:
        kind = type(x)
        look = _LOOKS.get(kind)
        if look is not None:
            look(self, x)
        elif issubclass(kind, type):
            self.of_class(x)
        elif _is_decorated(kind, x):
            self.of_decorated(x)
        elif _is_plain(kind) and hasattr(x, "__dict__"):
            self.value(kind)
            self.of_mapping(vars(x))
        else:
            self.opaque(x)

    def each(self, items: Iterable[Any]) -> None:
        for item in items:
            self.value(item)

    def of_mapping(self, x: Mapping[Any, Any]) -> None:
        self.trace.facts.append(len(x))
        for key, value in x.items():
            self.value(key)
            self.value(value)

    def of_function(self, x: types.FunctionType) -> None:
        if x is not self._root and self._by_reference(x):
            return
        code = x.__code__
        self.trace.objects.append(code)
        self.each(x.__defaults__ or ())
        for found in (x.__kwdefaults__, x.__dict__):
            if found:
                self.of_mapping(found)
        for cell in x.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:
                content = _EMPTY
            self.value(content)
        there = x.__globals__
        for name in _names(code):
            self.value(there.get(name, _EMPTY))

    def of_class(self, x: type) -> None:
        if not x.__flags__ & _HEAP or self._by_reference(x):
            return
        self.each(x.__bases__)
        self.of_mapping({name: value for name, value in vars(x).items() if name not in _UNSEEN})

    def of_decorated(self, x: Any) -> None:
        target = x.__genro_target__
        module, qualname = _place(target)
        if module != self._module and _found(module, qualname, target, unwrapped=True):
            return
        self.value(target)
        self.value(x.__dict__.get("_prefix"))

    def of_items(self, x: Any) -> None:
        if len(x) > _SHORT:
            self.opaque(x)
            return
        self.trace.facts.append(len(x))
        self.each(x)

    def of_dict(self, x: dict[Any, Any]) -> None:
        if len(x) > _SHORT:
            self.opaque(x)
        else:
            self.of_mapping(x)

    def of_method(self, x: types.MethodType) -> None:
        self.value(x.__func__)
        self.value(x.__self__)

    def of_builtin(self, x: types.BuiltinFunctionType) -> None:
        if not isinstance(x.__self__, types.ModuleType | None):
            self.value(x.__self__)

    def of_partial(self, x: functools.partial[Any]) -> None:
        self.value(x.func)
        self.each(x.args)
        self.of_mapping(x.keywords)

    def of_property(self, x: property) -> None:
        self.each((x.fget, x.fset, x.fdel))

    def of_wrapped(self, x: Any) -> None:
        self.value(x.__func__)

    def of_module(self, x: types.ModuleType) -> None:
        if values.is_by_value(x.__name__) or sys.modules.get(x.__name__) is not x:
            raise _TooMuchError

    def opaque(self, x: Any) -> None:
        """What only its pickle shows."""
        digest = None if id(x) in self._large else _digest(x, self._module)
        if digest is None:
            self.trace.large[id(x)] = x
            self.trace.facts.append(_extent(x))
        else:
            self.trace.facts.append(digest)

    def _by_reference(self, x: Any) -> bool:
        module, qualname = _place(x)
        return module != self._module and _found(module, qualname, x, unwrapped=False)


_LOOKS: Final[dict[type, Callable[[_Walk, Any], None]]] = {
    types.FunctionType: _Walk.of_function,
    types.MethodType: _Walk.of_method,
    types.BuiltinFunctionType: _Walk.of_builtin,
    types.ModuleType: _Walk.of_module,
    functools.partial: _Walk.of_partial,
    property: _Walk.of_property,
    staticmethod: _Walk.of_wrapped,
    classmethod: _Walk.of_wrapped,
    tuple: _Walk.of_items,
    list: _Walk.of_items,
    set: _Walk.of_items,
    frozenset: _Walk.of_items,
    dict: _Walk.of_dict,
}


def _place(x: Any) -> tuple[str, str]:
    return getattr(x, "__module__", None) or "", getattr(x, "__qualname__", "<unknown>")


def _found(module: str, qualname: str, x: Any, *, unwrapped: bool) -> bool:
    """Does it stand there, for every process that imports the module?"""
    there: Any = sys.modules.get(module)
    if there is None or module == "__main__" or "<" in qualname or values.is_by_value(module):
        return False
    for part in qualname.split("."):
        there = getattr(there, part, None)
    while unwrapped and there is not x and hasattr(there, "__genro_target__"):
        there = there.__genro_target__
    return there is x


def _is_decorated(kind: type, x: Any) -> bool:
    # Looking at attributes of whatever comes could run code of theirs.
    return kind.__module__.startswith("genro_nats.") and "__genro_target__" in getattr(x, "__dict__", ())


def _is_plain(kind: Any) -> bool:
    """Is an instance pickled as its class and its ``__dict__``?"""
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and kind.__getstate__ is object.__getstate__
        and kind not in copyreg.dispatch_table
        and not hasattr(kind, "__getnewargs_ex__")
        and not hasattr(kind, "__getnewargs__")
        and kind is not object
        and all(c.__flags__ & _HEAP and "__slots__" not in c.__dict__ for c in kind.__mro__[:-1])
    )


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that the code, and code within it, may look up among the globals."""
    yield from code.co_names  # attributes too: one global too many does no harm
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _digest(x: Any, module: str) -> bytes | None:
    """The digest of its pickle; None if that is large. Raises CodecError."""
    body, buffers = pickled(x, type(x).__qualname__, module)
    if len(body) + sum(memoryview(buffer).nbytes for buffer in buffers) > LARGE:
        return None
    found = hashlib.sha256(body)
    for buffer in buffers:
        found.update(buffer)
    return found.digest()


def _extent(x: Any) -> Any:
    """How much is in it, as far as that costs nothing to see."""
    if isinstance(x, list | dict | set | frozenset | tuple | bytearray):
        return len(x)
    shape = getattr(x, "shape", None)
    return shape if isinstance(shape, tuple) else None


def large_variables(function: Callable[..., Any], module: str = "") -> dict[str, int]:
    """The variables of a function, and of functions it names, that take more than 1 MB each; their bytes."""
    found: dict[str, int] = {}
    seen: set[int] = set()

    def look(f: Any) -> None:
        if id(f) in seen:
            return
        seen.add(id(f))
        for name, value in _variables(f):
            target = value.__genro_target__ if _is_decorated(type(value), value) else value
            if isinstance(target, types.FunctionType):
                if _place(target)[0] == module or not _found(*_place(target), target, unwrapped=True):
                    look(target)
            elif (size := _size(value, module)) > LARGE:
                found[name] = size

    look(function)
    return found


def _variables(f: Any) -> Iterable[tuple[str, Any]]:
    """What a function, method, partial or instance holds, by name."""
    if isinstance(f, types.FunctionType):
        yield from _of_function(f)
    elif isinstance(f, types.MethodType):
        yield f.__name__, f.__func__
        yield from getattr(f.__self__, "__dict__", {}).items()
    elif isinstance(f, functools.partial):
        yield "func", f.func
        yield from ((f"args[{number}]", value) for number, value in enumerate(f.args))
        yield from f.keywords.items()
    else:
        yield from getattr(f, "__dict__", {}).items()


def _of_function(f: types.FunctionType) -> Iterable[tuple[str, Any]]:
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    code, defaults = f.__code__, f.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from (f.__kwdefaults__ or {}).items()
    yield from ((name, f.__globals__[name]) for name in _names(code) if name in f.__globals__)


def _size(x: Any, module: str) -> int:
    if isinstance(x, types.ModuleType):
        return 0
    if isinstance(x, bytes | str | bytearray):
        return len(x)
    try:
        body, buffers = pickled(x, type(x).__qualname__, module)
    except CodecError:
        return 0
    return len(body) + sum(memoryview(buffer).nbytes for buffer in buffers)
