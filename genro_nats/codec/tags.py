"""The marks of the data codec: what stands in place of values that msgpack has no word for.

Such a value is an array that begins with a mark, a msgpack extension without data whose
code says what follows it. The codes are the protocol (``docs/wire.md``): never reuse one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from msgspec.msgpack import Ext

__all__ = ["ATOMS", "MARKS", "Mark", "mark"]

ATOMS: Final = frozenset({type(None), bool, int, float, str})


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


MARKS: Final = {code: mark(code) for code in Mark}
