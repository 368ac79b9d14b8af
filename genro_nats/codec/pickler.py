"""cloudpickle, with what it leaves to names: these lead to the main program, which is another one elsewhere.

Whatever reduces to a text is pickled as the name of a global, also where its module goes by value. Cached
functions and the names of types are taken file here; anything else of the main program is refused.
"""

from __future__ import annotations

import copyreg
import functools
import io
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import cloudpickle

from genro_nats.codec.modules import MAIN, SPAWNED_MAIN, as_by_value, is_main
from genro_nats.codec.nature import CACHED, place_of, stands_at
from genro_nats.codec.pickle_file import PickleFile
from genro_nats.errors import CodecError

__all__ = ["cached", "dumps"]

_reduced: Final = cloudpickle.Pickler.reducer_override
_EX: Final = object.__reduce_ex__
_PLAIN: Final = object.__reduce__


def dumps(value: Any, file: PickleFile | None = None) -> bytes:
    """The pickle of a value, what lives in the main program or a module by value included.

    ``file``: takes its large buffers; without one they are in the pickle.

    Raises:
        CodecError: something of the main program could only go by its name.
        Exception: what can't be pickled raises what it likes.
    """
    if SPAWNED_MAIN in sys.modules:
        with as_by_value(SPAWNED_MAIN):
            return _dumps(value, file)
    return _dumps(value, file)


def _dumps(value: Any, file: PickleFile | None) -> bytes:
    if file is not None:
        _Pickler(file, 5, file.keep).dump(value)
        return file.body
    with io.BytesIO() as whole:
        _Pickler(whole, 5).dump(value)
        return whole.getvalue()


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """A function with a cache of its own, empty. Pickles name this: it can't be renamed or moved."""
    return functools.lru_cache(maxsize, typed)(function)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        """How an object is pickled; ``NotImplemented``: as pickle does it."""
        kind: Any = type(obj)
        file = _TAKEN_APART.get(kind)
        if file is not None:
            return file(obj)
        found = _reduced(self, obj)
        if found is not NotImplemented or getattr(obj, "__module__", None) not in MAIN:
            return found
        if kind.__reduce_ex__ is _EX and kind.__reduce__ is _PLAIN and kind not in copyreg.dispatch_table:
            return found  # never a name
        return self._of_main(obj, kind)

    def _of_main(self, obj: Any, kind: type) -> Any:
        """As pickle does it, unless that is by name."""
        reduce = self.dispatch_table.get(kind)
        found = obj.__reduce_ex__(5) if reduce is None else reduce(obj)
        if isinstance(found, str):
            raise _only_a_name(f"{found!r} of the main program, a {kind.__qualname__}, is")
        return found


def _has_name(x: Any) -> bool:
    return stands_at(*place_of(x), x, unwrapped=False)


def _of_cached(x: Any) -> Any:
    if _has_name(x) or not hasattr(x, "cache_parameters"):
        return NotImplemented
    # With its attributes: a recursive function has none of its own yet when its wrapper is made.
    kept = {name: v for name, v in vars(x).items() if name not in ("__wrapped__", "cache_parameters")}
    given = x.cache_parameters()
    return cached, (x.__wrapped__, given["maxsize"], given["typed"]), kept


def _of_cached_property(x: functools.cached_property[Any]) -> Any:
    # Before Python 3.12 it holds a lock.
    return functools.cached_property, (x.func,), {k: v for k, v in vars(x).items() if k != "lock"}


def _of_new_type(x: Any) -> Any:
    return NotImplemented if _has_name(x) else (typing.NewType, (x.__name__, x.__supertype__), {**vars(x)})


def _of_parameters(x: Any) -> Any:
    named = stands_at(x.__module__ or "", x.__name__, x, unwrapped=False)
    return NotImplemented if named else (type(x), (x.__name__,))


def _of_module(x: types.ModuleType) -> Any:
    if is_main(x.__name__):
        raise _only_a_name("the module of the main program is")
    return NotImplemented


def _only_a_name(what: str) -> CodecError:
    return CodecError(
        f"{what} pickled as a name, which leads to something else in another process. Define it at the top of an "
        "importable module and import it from there"
    )


_TAKEN_APART: Final[dict[type, Callable[[Any], Any]]] = {
    CACHED: _of_cached,
    functools.cached_property: _of_cached_property,
    typing.NewType: _of_new_type,
    typing.ParamSpec: _of_parameters,
    typing.TypeVarTuple: _of_parameters,
    types.ModuleType: _of_module,
}
