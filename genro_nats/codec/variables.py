"""What a function that goes by value takes along, by the names that its author knows."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

from genro_nats.codec.nature import CACHED, is_decorated, place_of, stands_at

__all__ = ["variables"]


def variables(function: Any, module: str = "") -> Iterator[tuple[str, Any]]:
    """The variables of a function, and of the functions among them that go along; these themselves are none.

    ``module``: what lives there goes along too.
    """
    waiting, seen = [function], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for name, value in _held(one):
            target = _plain(value)
            if not isinstance(target, types.FunctionType):
                yield name, value
            elif place_of(target)[0] == module or not stands_at(*place_of(target), target, unwrapped=True):
                waiting.append(target)


def _plain(value: Any) -> Any:
    """The function below a pool's decorator or a cache."""
    if is_decorated(type(value), value):
        return value.__genro_target__
    if type(value) is CACHED and not stands_at(*place_of(value), value, unwrapped=False):
        return value.__wrapped__
    return value


def _held(f: Any) -> Iterable[tuple[str, Any]]:
    """What a function, method, partial or instance holds, by name."""
    if isinstance(f, types.FunctionType):
        yield from _of_function(f)
    elif type(f) is CACHED:
        yield "__wrapped__", f.__wrapped__
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
    yield from ((name, f.__globals__[name]) for name in _globals_of(code) if name in f.__globals__)


def _globals_of(code: types.CodeType) -> Iterator[str]:
    """The globals that the code uses. Slower than ``global_names``, and without attributes of the same name."""
    yield from (one.argval for one in dis.get_instructions(code) if one.opname.endswith("_GLOBAL"))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant)
