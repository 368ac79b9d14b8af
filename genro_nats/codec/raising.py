"""What msgpack held to values: nothing is imported, and nothing of the user's runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final
from uuid import UUID

from msgspec.msgpack import Ext

from genro_nats.codec import arrays, times
from genro_nats.codec.datatypes import Types, is_namedtuple, type_name
from genro_nats.codec.frame import Buffer
from genro_nats.codec.tags import Mark
from genro_nats.errors import DecodeError

__all__ = ["Raising"]

_STATED: Final = frozenset({Mark.ENUM, Mark.DATACLASS, Mark.NAMEDTUPLE})


class Raising:
    """What msgpack held to values. ``types``: those that may be named."""

    def __init__(self, buffers: Sequence[Buffer], types: Types, depth: int) -> None:
        self._buffers = buffers
        self._types = types
        self._left = depth

    def value(self, value: Any) -> Any:
        """The value. Raises NotAllowedError, and anything else for what is not of this format."""
        kind = type(value)
        if kind is not list and kind is not dict:
            if kind is Ext or kind is tuple:
                raise DecodeError("A mark or an array where none is expected.")
            return value
        if self._left <= 0:
            raise DecodeError("It is nested too deep.")
        self._left -= 1
        try:
            if kind is dict:
                return {self._key(key): self.value(one) for key, one in value.items()}
            if value and type(value[0]) is Ext:
                return self._marked(value[0].code, value[1:])
            return [*map(self.value, value)]
        finally:
            self._left += 1

    def _key(self, key: Any) -> Any:
        if type(key) is tuple or type(key) is Ext:
            raise DecodeError("A key that is no plain one.")
        return key

    def _marked(self, code: int, parts: list[Any]) -> Any:
        if (made := _MADE_OF.get(code)) is not None:
            return made([*map(self.value, parts)])
        if (simple := _RAISED.get(code)) is not None:
            return simple(parts)
        if code == Mark.BUFFER:
            return self._whole(self._buffer(*parts))
        if code == Mark.ARRAY:
            dtype, order, raw, *shape = parts
            data = self._buffer(raw) if type(raw) is int else bytearray(_of(bytes, raw))
            return arrays.array(dtype, order, data, shape)
        if code not in _STATED:
            raise DecodeError(f"An unknown mark {code}.")
        kind = self._types.find(parts[0])
        if code == Mark.ENUM:
            return _member(kind, self.value(parts[1]))
        if code == Mark.DATACLASS:
            return _dataclass(kind, self.value(_of(dict, parts[1])))
        return _namedtuple(kind, [*map(self.value, parts[1:])])

    def _buffer(self, number: int) -> Buffer:
        if type(number) is not int or not 0 <= number < len(self._buffers):
            raise DecodeError(f"A buffer {number!r} that did not come.")
        return self._buffers[number]

    def _whole(self, buffer: Buffer) -> bytes | bytearray:
        # What is read-only came as bytes; anything else is the receiver's own memory.
        return buffer if isinstance(buffer, bytes | bytearray) else bytearray(buffer)


def _pairs(parts: list[Any]) -> dict[Any, Any]:
    keys, values = parts[::2], parts[1::2]
    return dict(zip(keys, values, strict=True))


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise DecodeError(f"A {type(value).__name__} where a {kind.__name__} is expected.")
    return value


_MADE_OF: Final[dict[int, Callable[[list[Any]], Any]]] = {
    Mark.TUPLE: tuple,
    Mark.SET: set,
    Mark.FROZENSET: frozenset,
    Mark.DICT: _pairs,
}
_RAISED: Final[dict[int, Callable[[list[Any]], Any]]] = {
    Mark.BYTEARRAY: lambda parts: bytearray(_of(bytes, *parts)),
    Mark.INT: lambda parts: int.from_bytes(_of(bytes, *parts), "big", signed=True),
    Mark.STR: lambda parts: str(_of(bytes, *parts), "utf-8", "surrogatepass"),
    Mark.DATETIME: lambda parts: times.to_datetime(*parts),
    Mark.DATE: lambda parts: date.fromisoformat(*parts),
    Mark.TIME: lambda parts: times.to_time(*parts),
    Mark.TIMEDELTA: lambda parts: timedelta(*parts),
    Mark.DECIMAL: lambda parts: Decimal(_of(str, *parts)),
    Mark.UUID: lambda parts: UUID(bytes=_of(bytes, *parts)),
    Mark.COMPLEX: lambda parts: complex(*parts),
    Mark.SCALAR: lambda parts: arrays.scalar(*parts),
}


def _member(kind: type, what: Any) -> Any:
    if not issubclass(kind, Enum):
        raise DecodeError(f"{type_name(kind)} is no enum here.")
    if type(what) is str and what in kind.__members__:
        return kind.__members__[what]
    if type(what) is int and issubclass(kind, Flag):
        return kind(what)
    raise DecodeError(f"{type_name(kind)} has no member {what!r} here.")


def _dataclass(kind: type, found: dict[Any, Any]) -> Any:
    """An instance with these fields, without running its ``__init__``, as unpickling does not either."""
    if not dataclasses.is_dataclass(kind):
        raise DecodeError(f"{type_name(kind)} is no dataclass here.")
    made = object.__new__(kind)
    for field in dataclasses.fields(kind):
        if field.name in found:
            value = found.pop(field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            continue
        object.__setattr__(made, field.name, value)
    if found:
        raise DecodeError(f"{type_name(kind)} has no field {next(iter(found))!r} here.")
    return made


def _namedtuple(kind: type, items: list[Any]) -> Any:
    if not is_namedtuple(kind) or len(items) != len(kind._fields):  # type: ignore[attr-defined]
        raise DecodeError(f"{type_name(kind)} is no named tuple of {len(items)} items here.")
    return tuple.__new__(kind, items)
