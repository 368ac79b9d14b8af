"""What a function's pickle depends on, looked at again before each call: has it changed?

The walk goes where the pickle would: code, defaults, cells, the globals that the code names, and on through
functions, classes, instances, tuples and small containers that go by value. What can't change is compared by
identity. Anything else (a longer list, an array, an object that pickles itself) is pickled anew and compared by
digest, unless that takes more than 1 MB: then only its identity and its extent are compared, because a look at all
of it would cost more than the call. The warning about such closures says so.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import hashlib
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, NewType

from genro_nats.codec.by_value import pickled
from genro_nats.codec.modules import is_by_value
from genro_nats.codec.nature import (
    CACHED,
    HEAP,
    global_names,
    is_decorated,
    is_plain,
    members,
    place_of,
    stands_at,
)
from genro_nats.errors import CodecError

__all__ = ["LARGE", "Trace", "trace"]

LARGE: Final = 1_000_000  # bytes of one variable, pickled, from which on it is not looked into
_SHORT: Final = 64  # items of a container that are looked at one by one
_MOST: Final = 5_000  # things looked at; a function that depends on more is pickled at each call
_ATOMS: Final = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented)),
        *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
        *(types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType),
    }
)
_EMPTY: Final = object()
_ROOT: Final = object()


class _Seen(NamedTuple):
    """A function as it was; None in place of the one that is asked about, which nobody is to hold."""

    function: types.FunctionType | None
    code: types.CodeType
    defaults: tuple[Any, ...] | None
    keywords: dict[str, Any] | None
    marked: bool  # has it attributes?
    cells: tuple[Any, ...]
    names: tuple[str, ...]
    globals: tuple[Any, ...]


class Trace:
    """What a walk came across, as it was then. Held, so that no other thing can take its place unnoticed."""

    __slots__ = ("containers", "functions", "large", "opaque")

    def __init__(self) -> None:
        self.functions: list[_Seen] = []
        self.containers: list[tuple[Callable[[], Iterable[Any]], tuple[Any, ...]]] = []
        self.opaque: list[tuple[Any, str, bytes]] = []
        self.large: list[tuple[Any, Any]] = []

    def holds(self, root: Callable[..., Any]) -> bool:
        """Is everything still as it was? ``root``: the function itself."""
        # Plain loops: this is done for each call.
        try:
            for seen in self.functions:
                if not _function_holds(seen, root):
                    return False
            for now, before in self.containers:
                if not _all_same(now(), before, root):
                    return False
            for x, extent in self.large:
                if _extent(x) != extent:
                    return False
            return all(_digest(x, module) == digest for x, module, digest in self.opaque)
        except (
            CodecError,
            RuntimeError,
            AttributeError,
        ):  # changed while it was looked at, or unfit for a pickle
            return False


def _function_holds(seen: _Seen, root: Any) -> bool:
    f: Any = seen.function or root
    _, code, defaults, keywords, marked, cells, names, found = seen
    if f.__code__ is not code or f.__defaults__ is not defaults:
        return False
    if f.__kwdefaults__ is not keywords or bool(f.__dict__) is not marked:
        return False
    if cells:
        for cell, before in zip(f.__closure__, cells, strict=True):
            now = _content(cell)
            if now is not before and not (before is _ROOT and now is root):
                return False
    if names:
        there = f.__globals__
        for name, before in zip(names, found, strict=True):
            now = there.get(name, _EMPTY)
            if now is not before and not (before is _ROOT and now is root):
                return False
    return True


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _all_same(now: Iterable[Any], before: tuple[Any, ...], root: Any) -> bool:
    now = tuple(now)
    return len(now) == len(before) and all(
        x is y or (y is _ROOT and x is root) for x, y in zip(now, before, strict=True)
    )


def trace(function: Callable[..., Any], module: str = "") -> Trace | None:
    """All that the function depends on; None where that can't be told more cheaply than by pickling it.

    ``module``: what lives there goes by value too.
    """
    walk = _Walk(function, module)
    try:
        walk.into(function)
    except (_TooMuchError, CodecError, RecursionError, RuntimeError):  # or changed while it was looked at
        return None
    return walk.trace


class _TooMuchError(Exception):
    pass


class _Walk:
    def __init__(self, root: Any, module: str) -> None:
        self.trace = Trace()
        self._root = root
        self._module = module
        self._seen: dict[int, Any] = {}

    def value(self, x: Any) -> Any:
        """Look into a thing that may change; what is to be remembered of it."""
        if x is self._root:
            return _ROOT  # not itself: it would never be let go
        if type(x) in _ATOMS or x is _EMPTY or id(x) in self._seen:
            return x
        if len(self._seen) > _MOST:
            raise _TooMuchError
        self._seen[id(x)] = x
        self.into(x)
        return x

    def into(self, x: Any) -> None:
        kind = type(x)
        look = _LOOKS.get(kind)
        if look is not None:
            look(self, x)
        elif issubclass(kind, type):
            self.of_class(x)
        elif is_decorated(kind, x):
            self.of_decorated(x)
        elif isinstance(x, enum.Enum):
            self.value(kind)
        elif is_plain(kind) and hasattr(x, "__dict__"):
            self.of_instance(x)
        else:
            self.opaque(x)

    def each(self, items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(map(self.value, items))

    def container(self, now: Callable[[], Iterable[Any]]) -> None:
        """Something whose items may become others."""
        self.trace.containers.append((now, self.each(now())))

    def of_mapping(self, x: Mapping[Any, Any]) -> None:
        self.container(x.keys)
        self.container(x.values)

    def of_function(self, x: types.FunctionType) -> None:
        mine = x is self._root
        if not mine and self._by_reference(x):
            return
        names = tuple(dict.fromkeys(global_names(x.__code__)))
        cells = self.each(map(_content, x.__closure__ or ()))
        there = self.each(x.__globals__.get(name, _EMPTY) for name in names)
        f, marked = None if mine else x, bool(x.__dict__)
        self.trace.functions.append(
            _Seen(f, x.__code__, x.__defaults__, x.__kwdefaults__, marked, cells, names, there)
        )
        self.each(x.__defaults__ or ())
        if x.__kwdefaults__:
            self.of_mapping(x.__kwdefaults__)
        if x.__dict__:
            self.of_mapping(x.__dict__)

    def of_class(self, x: type) -> None:
        if not x.__flags__ & HEAP or self._by_reference(x):
            return
        self.each(x.__bases__)
        self.container(lambda: members(x))

    def of_instance(self, x: Any) -> None:
        self.container(lambda: (type(x), *vars(x), *vars(x).values()))

    def of_decorated(self, x: Any) -> None:
        target = x.__genro_target__
        module, qualname = place_of(target)
        if module != self._module and stands_at(module, qualname, target, unwrapped=True):
            return
        self.value(target)
        self.value(x.__dict__.get("_prefix"))

    def of_items(self, x: Any) -> None:
        if len(x) > _SHORT:
            self.opaque(x)
        else:
            self.container(lambda: x)

    def of_tuple(self, x: tuple[Any, ...] | frozenset[Any]) -> None:
        if len(x) > _SHORT:
            self.opaque(x)
        else:
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

    def of_cached_property(self, x: functools.cached_property[Any]) -> None:
        self.value(x.func)

    def of_named(self, x: Any) -> None:
        """What pickles as a name, or as its attributes."""
        if not self._by_reference(x):
            self.of_mapping(vars(x))

    def of_wrapped(self, x: Any) -> None:
        self.value(x.__func__)

    def of_module(self, x: types.ModuleType) -> None:
        if is_by_value(x.__name__) or sys.modules.get(x.__name__) is not x:
            raise _TooMuchError

    def opaque(self, x: Any) -> None:
        """What only its pickle shows."""
        digest = _digest(x, self._module)
        if digest is None:
            self.trace.large.append((x, _extent(x)))
        else:
            self.trace.opaque.append((x, self._module, digest))

    def _by_reference(self, x: Any) -> bool:
        module, qualname = place_of(x)
        return module != self._module and stands_at(module, qualname, x, unwrapped=False)


_LOOKS: Final[dict[type, Callable[[_Walk, Any], None]]] = {
    types.FunctionType: _Walk.of_function,
    types.MethodType: _Walk.of_method,
    types.BuiltinFunctionType: _Walk.of_builtin,
    types.ModuleType: _Walk.of_module,
    functools.partial: _Walk.of_partial,
    CACHED: _Walk.of_named,
    NewType: _Walk.of_named,
    property: _Walk.of_property,
    functools.cached_property: _Walk.of_cached_property,
    staticmethod: _Walk.of_wrapped,
    classmethod: _Walk.of_wrapped,
    tuple: _Walk.of_tuple,
    frozenset: _Walk.of_tuple,
    list: _Walk.of_items,
    set: _Walk.of_items,
    dict: _Walk.of_dict,
}


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
