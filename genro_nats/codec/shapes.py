"""What travels of a dataclass or named tuple: its fields. An instance that holds more is refused, not cut."""

from __future__ import annotations

import copyreg
import dataclasses
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

from genro_nats.codec.datatypes import type_name
from genro_nats.errors import CodecError

__all__ = ["Shape", "no_data", "require_fields_only", "shape_of"]

_TYPING: Final = frozenset({"__orig_class__"})  # what Generic[int](...) leaves in its instance
_WAY: Final = "or use codec='pickle' with workers that trust their callers."


class Shape(NamedTuple):
    """The fields of a type. ``known``: names that an instance may hold; ``slots``: those that are no fields."""

    name: str
    fields: tuple[str, ...]
    known: frozenset[str]
    slots: tuple[str, ...]


@lru_cache(
    1024
)  # a class has its fields once and for all, and reading them costs more than sending one instance
def shape_of(kind: Any) -> Shape:
    """The shape of a dataclass, or of a named tuple (whose items travel, so that it may hold nothing beside them).

    Raises:
        CodecError: a dataclass that is more than its fields, since it is made by a ``__new__`` of its own or
            of another built-in type.
    """
    derived = [n for c in kind.__mro__ for n, value in vars(c).items() if isinstance(value, cached_property)]
    has_fields = dataclasses.is_dataclass(kind)
    if not has_fields:
        return Shape(type_name(kind), kind._fields, _TYPING.union(derived), ())
    if kind.__new__ is not object.__new__:
        raise _made_otherwise(kind)
    fields = tuple(field.name for field in dataclasses.fields(kind))
    known = _TYPING.union(fields, derived)
    slots = tuple(name for name in copyreg._slotnames(kind) if name not in known)  # type: ignore[attr-defined]
    return Shape(type_name(kind), fields, known, slots)


def require_fields_only(kind: type, names: Any, shape: Shape) -> None:
    """Are these names of attributes all known? Raises CodecError."""
    for name in names:
        if name not in shape.known:
            raise CodecError(
                f"{_shown(kind)} can't be sent as data: its attribute {name!r} is no field, and would be lost. Make it "
                f"a field or a functools.cached_property, pass a dictionary in its place, {_WAY}"
            )


def no_data(kind: type) -> CodecError:
    """The error for a value of a type that is no data."""
    return CodecError(
        f"{_shown(kind)} can't be sent as data. Pass a dictionary, a dataclass or an id in its place, {_WAY}"
    )


def _made_otherwise(kind: type) -> CodecError:
    maker = next(c for c in kind.__mro__ if "__new__" in vars(c))
    made = maker.__qualname__
    why = (
        f"it is of the type {made} too, and only its fields would arrive. Hold the {made} in a field"
        if maker.__module__ == "builtins"
        else f"{made}.__new__ would not run where it arrives. Do without"
    )
    return CodecError(f"{_shown(kind)} can't be sent as data: {why}, pass a dictionary in its place, {_WAY}")


def _shown(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
