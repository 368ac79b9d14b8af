"""The types that data may name: those in functions' annotations, and those marked with ``@data_type``.

Nothing is imported because a message names it. A type is known when a function that
was called here names it in its annotations (directly, within others, or in the fields
of another such type), or when it is marked and stands in an imported module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, TypeVar
from weakref import WeakSet

from genro_nats.codec.loaded import is_class, loaded
from genro_nats.errors import NotAllowedError

__all__ = ["Types", "data_type", "is_data_type", "is_namedtuple", "type_name"]

T = TypeVar("T", bound=type)

MARK: Final = "__genro_data__"
_MAX_NAME: Final = 512


def data_type(cls: T) -> T:
    """Let a dataclass, enum or named tuple travel as data wherever its module is imported.

    Types that a function names in its annotations need no mark.

    Raises:
        TypeError: it is none of the three.
    """
    if not is_data_type(cls):
        raise TypeError(f"{cls!r} is no dataclass, enum or named tuple: only these travel as data.")
    setattr(cls, MARK, cls.__qualname__)
    return cls


def is_data_type(kind: Any) -> bool:
    """A dataclass, an enum or a named tuple?"""
    if not is_class(kind) or issubclass(kind, BaseException):
        return False
    return dataclasses.is_dataclass(kind) or issubclass(kind, Enum) or is_namedtuple(kind)


def is_namedtuple(kind: type) -> bool:
    """A class made by NamedTuple or namedtuple?"""
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def type_name(kind: type) -> str:
    """``module:qualname``."""
    return f"{kind.__module__}:{kind.__qualname__}"


class Types:
    """The types that one side takes from the wire."""

    def __init__(self) -> None:
        self._known: dict[str, type] = {}
        self._learned: WeakSet[Any] = WeakSet()
        self._last: Any = None

    def learn(self, function: Callable[..., Any]) -> None:
        """Know the types that a function's annotations name."""
        if self.knows(function):
            return
        with contextlib.suppress(TypeError):  # neither hashable nor weakly referable: looked at each time
            self._learned.add(function)
        for hint in _hints(function):
            self._add(hint)
        self._last = function

    def knows(self, function: Callable[..., Any]) -> bool:
        """Has it been learned?"""
        try:
            return function is self._last or function in self._learned
        except TypeError:
            return False

    def find(self, name: Any) -> type:
        """The type of that name.

        Raises:
            NotAllowedError: it is none of those that are known here.
        """
        found = self._known.get(name) if isinstance(name, str) else None
        if found is None:
            found = self._known[name] = _marked(name)
        return found

    def _add(self, hint: Any) -> None:
        waiting, seen = [hint], set()
        while waiting:
            one = waiting.pop()
            if id(one) in seen or (isinstance(one, type) and self._known.get(type_name(one)) is one):
                continue
            seen.add(id(one))
            if is_data_type(one):
                self._known[type_name(one)] = one
                waiting += _hints(one)
            waiting += _within(one)


def _marked(name: Any) -> type:
    kind: Any = loaded(name) if isinstance(name, str) and len(name) <= _MAX_NAME else None
    if is_data_type(kind) and MARK in vars(kind) and type_name(kind) == name:
        return kind  # type: ignore[no-any-return]
    raise NotAllowedError(
        f"The type {str(name)[:_MAX_NAME]!r} is not known here: name it in the annotations of the function, or mark "
        "it with @genro_nats.data_type and import its module here (a worker: --import).",
        reason="type",
    )


def _within(hint: Any) -> Iterator[Any]:
    """What an annotation is made of."""
    for part in typing.get_args(hint):
        yield from part if isinstance(part, list) else [part]
        if isinstance(part, Enum):  # of a Literal
            yield type(part)
    yield typing.get_origin(hint)
    for attribute in ("__supertype__", "__bound__"):  # of NewType, of TypeVar
        yield getattr(hint, attribute, None)
    if type(hint).__name__ == "TypeAliasType":
        yield hint.__value__


def _hints(owner: Any) -> list[Any]:
    """The annotations of a function or class; those that can't be evaluated are left out."""
    try:
        return list(typing.get_type_hints(owner, include_extras=True).values())
    except Exception:
        stated = getattr(owner, "__annotations__", {})
    found: list[Any] = []
    for annotation in stated.values() if isinstance(stated, dict) else ():
        one = type("_", (), {"__annotations__": {"_": annotation}, "__module__": owner.__module__})
        try:
            found += typing.get_type_hints(one, include_extras=True).values()
        except Exception:  # noqa: S112 - imported for type checkers only, perhaps
            continue
    return found
