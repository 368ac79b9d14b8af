"""Values to what msgpack can hold: those it has no word for as arrays that begin with a mark."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from msgspec.msgpack import Ext

from genro_nats.codec import arrays, times
from genro_nats.codec.datatypes import is_namedtuple, type_name
from genro_nats.codec.frame import MAX_VALUE_BUFFERS, OUT_OF_BAND, Buffer
from genro_nats.codec.shapes import no_data, require_fields_only, shape_of
from genro_nats.codec.tags import ATOMS, MARKS, Mark
from genro_nats.errors import CodecError

__all__ = ["Lowering"]

_LEAST, _MOST = -(1 << 63), 1 << 64
_UNSET: Final = object()


class Lowering:
    """Values to what msgpack can hold. ``buffers``: takes large ones; None: all stays in the body.

    ``exact``: looks for ints of more than 64 bits and texts with lone surrogates too.
    """

    def __init__(self, buffers: list[Buffer] | None, depth: int, *, exact: bool) -> None:
        self._exact = exact
        self._buffers = buffers
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
            return [MARKS[Mark.INT], value.to_bytes(length, "big", signed=True)]
        if kind is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return [MARKS[Mark.STR], value.encode("utf-8", "surrogatepass")]
        return value

    def _bytes(self, value: bytes | bytearray) -> Any:
        if (number := self._left_out(value, len(value))) is not None:
            return [MARKS[Mark.BUFFER], number]
        return value if type(value) is bytes else [MARKS[Mark.BYTEARRAY], bytes(value)]

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
        return [MARKS[Mark.DICT], *pairs]

    def _stated(self, value: Any, kind: type) -> Any:
        """A value of a type that the receiver has to know, or of NumPy's."""
        if issubclass(kind, Enum):
            known = kind.__members__.get(value.name or "") is value
            return [MARKS[Mark.ENUM], type_name(kind), value.name if known else self.value(value.value)]
        if dataclasses.is_dataclass(kind) or is_namedtuple(kind):
            return self._shaped(value, kind)
        if (numpy := sys.modules.get("numpy")) is not None:
            if kind is numpy.ndarray:
                return self._array(value)
            if isinstance(value, numpy.generic):
                return [MARKS[Mark.SCALAR], *arrays.scalar_parts(value)]
        raise no_data(kind)

    def _shaped(self, value: Any, kind: type) -> Any:
        """A dataclass or named tuple. Raises CodecError if it holds more than its fields."""
        shape = shape_of(kind)
        held = getattr(value, "__dict__", None)
        if held and not held.keys() <= shape.known:
            require_fields_only(kind, held, shape)
        if issubclass(kind, tuple):
            return [MARKS[Mark.NAMEDTUPLE], shape.name, *map(self.value, value)]
        if shape.slots:
            require_fields_only(kind, (name for name in shape.slots if hasattr(value, name)), shape)
        fields = {}
        for name in shape.fields:
            one = getattr(value, name, _UNSET)
            if one is not _UNSET:
                fields[name] = self.value(one)
        return [MARKS[Mark.DATACLASS], shape.name, fields]

    def _array(self, value: Any) -> Any:
        dtype, order, raw, shape = arrays.array_parts(value)
        number = self._left_out(raw, raw.nbytes)
        return [MARKS[Mark.ARRAY], dtype, order, raw.tobytes() if number is None else number, *shape]

    def _left_out(self, buffer: Buffer, length: int) -> int | None:
        """The number of a buffer that is left out of the body; None: it belongs into it."""
        if self._buffers is None or length < OUT_OF_BAND or len(self._buffers) >= MAX_VALUE_BUFFERS:
            return None
        self._buffers.append(buffer)
        return len(self._buffers) - 1


_ITEMS: Final[dict[type, Ext]] = {
    tuple: MARKS[Mark.TUPLE],
    set: MARKS[Mark.SET],
    frozenset: MARKS[Mark.FROZENSET],
}
_LOWERED: Final[dict[type, tuple[Ext, Callable[[Any], Sequence[Any]]]]] = {
    datetime: (MARKS[Mark.DATETIME], times.datetime_parts),
    date: (MARKS[Mark.DATE], lambda value: (value.isoformat(),)),
    time: (MARKS[Mark.TIME], times.time_parts),
    timedelta: (MARKS[Mark.TIMEDELTA], lambda value: (value.days, value.seconds, value.microseconds)),
    Decimal: (MARKS[Mark.DECIMAL], lambda value: (str(value),)),
    UUID: (MARKS[Mark.UUID], lambda value: (value.bytes,)),
    complex: (MARKS[Mark.COMPLEX], lambda value: (value.real, value.imag)),
}
