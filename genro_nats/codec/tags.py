"""Values that msgpack has no word for, as arrays that begin with a mark, and back.

A mark is a msgpack extension without data; its code says what follows it. The codes
are the protocol (``docs/wire.md``): never reuse one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from typing import Any, Final
from uuid import UUID

from msgspec.msgpack import Ext

from genro_nats.codec import arrays, times
from genro_nats.codec.datatypes import Types, is_namedtuple, type_name
from genro_nats.codec.frame import Buffer
from genro_nats.errors import CodecError, DecodeError

__all__ = ["ATOMS", "Lowering", "Raising", "mark"]

ATOMS: Final = frozenset({type(None), bool, int, float, str})
_STATED: Final = frozenset({15, 16, 17})  # enum, dataclass, named tuple
_LEAST, _MOST = -(1 << 63), 1 << 64


class Mark(IntEnum):
    """What follows a mark."""

    TUPLE = 1  # items
    SET = 2  # items
    FROZENSET = 3  # items
    DICT = 4  # key, value, key, value
    BYTEARRAY = 5  # bytes
    INT = 6  # two's complement, big-endian
    STR = 7  # UTF-8 with surrogates
    DATETIME = 8  # ISO text, fold, name of the time zone or None
    DATE = 9  # ISO text
    TIME = 10  # ISO text, fold
    TIMEDELTA = 11  # days, seconds, microseconds
    DECIMAL = 12  # text
    UUID = 13  # 16 bytes
    COMPLEX = 14  # real, imaginary
    ENUM = 15  # type, member's name or flag's bits
    DATACLASS = 16  # type, map of its fields
    NAMEDTUPLE = 17  # type, items
    ARRAY = 18  # dtype, order, buffer, lengths
    SCALAR = 19  # dtype, bytes
    BUFFER = 20  # number of the buffer that is this value


def mark(code: int) -> Ext:
    """The extension that begins such an array."""
    return Ext(int(code), b"")


_MARKS: Final = {code: mark(code) for code in Mark}


class Lowering:
    """Values to what msgpack can hold. ``buffers``: takes large ones; None: all stays in the body.

    ``exact``: looks for ints of more than 64 bits and texts with lone surrogates too.
    """

    def __init__(self, buffers: list[Buffer] | None, bulk: int, depth: int, *, exact: bool) -> None:
        self._exact = exact
        self._buffers = buffers
        self._bulk = bulk
        self._left = depth

    def value(self, value: Any) -> Any:
        """The lowered value. Raises CodecError."""
        kind = type(value)
        if kind in ATOMS:
            return self._atom(value, kind) if self._exact else value
        if kind is bytes:
            return self._bytes(value)
        if self._left <= 0:
            raise CodecError("A value nested too deep, or within itself, can't be sent as data: flatten it.")
        self._left -= 1
        try:
            return self._container(value, kind)
        finally:
            self._left += 1

    def _atom(self, value: Any, kind: type) -> Any:
        if kind is int and not _LEAST <= value < _MOST:
            length = value.bit_length() // 8 + 1
            return [_MARKS[Mark.INT], value.to_bytes(length, "big", signed=True)]
        if kind is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return [_MARKS[Mark.STR], value.encode("utf-8", "surrogatepass")]
        return value

    def _bytes(self, value: bytes | bytearray) -> Any:
        if self._buffers is not None and len(value) >= self._bulk:
            self._buffers.append(value)
            return [_MARKS[Mark.BUFFER], len(self._buffers) - 1]
        return value if type(value) is bytes else [_MARKS[Mark.BYTEARRAY], bytes(value)]

    def _container(self, value: Any, kind: type) -> Any:
        if kind is list:
            return [*map(self.value, value)]
        if kind is dict:
            return self._dict(value)
        if kind is bytearray:
            return self._bytes(value)
        if (items := _ITEMS.get(kind)) is not None:
            return [items, *map(self.value, value)]
        if (simple := _LOWERED.get(kind)) is not None:
            lowered, parts = simple
            return [lowered, *parts(value)]
        return self._stated(value, kind)

    def _dict(self, value: dict[Any, Any]) -> Any:
        if all(type(key) is str and key.isascii() for key in value):
            return {key: self.value(one) for key, one in value.items()}
        pairs = (self.value(part) for pair in value.items() for part in pair)
        return [_MARKS[Mark.DICT], *pairs]

    def _stated(self, value: Any, kind: type) -> Any:
        """A value of a type that the receiver has to know, or of NumPy's."""
        if issubclass(kind, Enum):
            known = kind.__members__.get(value.name or "") is value
            return [_MARKS[Mark.ENUM], type_name(kind), value.name if known else self.value(value.value)]
        if dataclasses.is_dataclass(kind):
            return [_MARKS[Mark.DATACLASS], type_name(kind), self._fields(value)]
        if is_namedtuple(kind):
            return [_MARKS[Mark.NAMEDTUPLE], type_name(kind), *map(self.value, value)]
        if (numpy := sys.modules.get("numpy")) is not None:
            if kind is numpy.ndarray:
                return self._array(value)
            if isinstance(value, numpy.generic):
                return [_MARKS[Mark.SCALAR], *arrays.scalar_parts(value)]
        raise _no_data(kind)

    def _fields(self, value: Any) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(value)]
        return {name: self.value(getattr(value, name)) for name in names if hasattr(value, name)}

    def _array(self, value: Any) -> Any:
        dtype, order, raw, shape = arrays.array_parts(value)
        if self._buffers is not None and raw.nbytes >= self._bulk:
            self._buffers.append(raw)
            return [_MARKS[Mark.ARRAY], dtype, order, len(self._buffers) - 1, *shape]
        return [_MARKS[Mark.ARRAY], dtype, order, raw.tobytes(), *shape]


_ITEMS: Final[dict[type, Ext]] = {
    tuple: _MARKS[Mark.TUPLE],
    set: _MARKS[Mark.SET],
    frozenset: _MARKS[Mark.FROZENSET],
}
_LOWERED: Final[dict[type, tuple[Ext, Callable[[Any], Sequence[Any]]]]] = {
    datetime: (_MARKS[Mark.DATETIME], times.datetime_parts),
    date: (_MARKS[Mark.DATE], lambda value: (value.isoformat(),)),
    time: (_MARKS[Mark.TIME], times.time_parts),
    timedelta: (_MARKS[Mark.TIMEDELTA], lambda value: (value.days, value.seconds, value.microseconds)),
    Decimal: (_MARKS[Mark.DECIMAL], lambda value: (str(value),)),
    UUID: (_MARKS[Mark.UUID], lambda value: (value.bytes,)),
    complex: (_MARKS[Mark.COMPLEX], lambda value: (value.real, value.imag)),
}


def _no_data(kind: type) -> CodecError:
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return CodecError(
        f"{name} can't be sent as data. Pass a dictionary, a dataclass or an id in its place, "
        "or use codec='pickle' with workers that trust their callers."
    )


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
