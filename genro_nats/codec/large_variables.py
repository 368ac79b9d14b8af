"""Which variables make a function large, for the warning about it."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from genro_nats.codec.by_value import pickled
from genro_nats.codec.closure import LARGE
from genro_nats.codec.nature import global_names, is_decorated, place_of, stands_at
from genro_nats.errors import CodecError

__all__ = ["large_variables"]

_NAMED: Final = 3


def large_variables(function: Callable[..., Any], module: str = "") -> dict[str, int]:
    """The variables of a function, and of functions it names, that take more than 1 MB; their bytes.

    Each of them alone; where none does, the largest of those that do together.
    """
    sizes: dict[str, int] = {}
    seen: set[int] = set()

    def look(f: Any) -> None:
        if id(f) in seen:
            return
        seen.add(id(f))
        for name, value in _variables(f):
            target = value.__genro_target__ if is_decorated(type(value), value) else value
            if isinstance(target, types.FunctionType):
                if place_of(target)[0] == module or not stands_at(*place_of(target), target, unwrapped=True):
                    look(target)
            else:
                sizes[name] = _size(value, module)

    look(function)
    found = {name: size for name, size in sizes.items() if size > LARGE}
    if not found and sum(sizes.values()) > LARGE:
        found = dict(sorted(sizes.items(), key=lambda item: -item[1])[:_NAMED])
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
    yield from ((name, f.__globals__[name]) for name in global_names(code) if name in f.__globals__)


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
