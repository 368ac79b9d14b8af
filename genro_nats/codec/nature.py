"""What an object is to a pickle: where it stands, whether it is one of ours, what of it is pickled."""

from __future__ import annotations

import copyreg
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any, Final

from genro_nats.codec.modules import is_by_value

__all__ = ["CACHED", "HEAP", "global_names", "is_decorated", "is_plain", "members", "place_of", "stands_at"]

CACHED: Final = type(functools.cache(len))  # of what functools.cache and lru_cache make
HEAP: Final = 1 << 9  # Py_TPFLAGSHEAPTYPE: a class made by a class statement
UNSEEN: Final = frozenset(  # of a class: not pickled, or changed by pickling
    {
        "__dict__",
        "__weakref__",
        "__slotnames__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "_abc_impl",
        "__doc__",
        "__annotations__",
        "__module__",
    }
)


def place_of(x: Any) -> tuple[str, str]:
    return getattr(x, "__module__", None) or "", getattr(x, "__qualname__", "<unknown>")


def stands_at(module: str, qualname: str, x: Any, *, unwrapped: bool) -> bool:
    """Does it stand there, for every process that imports the module?"""
    there: Any = sys.modules.get(module)
    if there is None or "<" in qualname or is_by_value(module):
        return False
    for part in qualname.split("."):
        there = getattr(there, part, None)
    while unwrapped and there is not x and hasattr(there, "__genro_target__"):
        there = there.__genro_target__
    return there is x


def is_decorated(kind: type, x: Any) -> bool:
    # Looking at attributes of whatever comes could run code of theirs.
    return kind.__module__.startswith("genro_nats.") and "__genro_target__" in getattr(x, "__dict__", ())


def members(x: type) -> Iterator[Any]:
    for name, value in vars(x).items():
        if name not in UNSEEN:
            yield name
            yield value


def is_plain(kind: Any) -> bool:
    """Is an instance pickled as its class and its ``__dict__``?"""
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and kind.__getstate__ is object.__getstate__
        and kind not in copyreg.dispatch_table
        and not hasattr(kind, "__getnewargs_ex__")
        and not hasattr(kind, "__getnewargs__")
        and kind is not object
        and all(c.__flags__ & HEAP and "__slots__" not in c.__dict__ for c in kind.__mro__[:-1])
    )


def global_names(code: types.CodeType) -> Iterator[str]:
    """The names that the code, and code within it, may look up among the globals."""
    yield from code.co_names  # attributes too: one global too many does no harm
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)
