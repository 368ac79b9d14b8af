"""Python values as data only: msgpack through ``msgspec``, with marks for what msgpack has no word for.

A body is plain msgpack where that says it all. Otherwise it is an array of two, the
mark 0 and the value, in which an array that begins with a mark stands for a value of
another type (``tags.py``, ``lowering.py``, ``raising.py``). Reading a body never runs or imports anything.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, Final

from msgspec import msgpack

from genro_nats.codec.datatypes import Types
from genro_nats.codec.frame import OUT_OF_BAND, Buffer
from genro_nats.codec.lowering import Lowering
from genro_nats.codec.raising import Raising
from genro_nats.codec.tags import ATOMS, mark
from genro_nats.errors import DecodeError, NotAllowedError

__all__ = ["dumps", "dumps_call", "dumps_whole", "loads"]

MAX_DEPTH: Final = 200
_MORE: Final = ATOMS | {bytes, list, dict}
_WIDE: Final = 1000  # values of a level; wider ones hold each container once, since one may be in many
_ROOT: Final = b"\x92\xc7\x00\x00"  # an array of two that begins with the mark 0


def dumps(value: Any) -> tuple[bytes, list[Buffer]]:
    """A value as msgpack, and the buffers that follow it.

    Raises:
        CodecError: something in it is no data; the text says which type and what to do.
    """
    buffers: list[Buffer] = []
    return _dumps(value, buffers), buffers


def dumps_whole(value: Any) -> bytes:
    """A value in one piece. Raises CodecError as ``dumps``."""
    return _dumps(value, None)


def dumps_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[tuple[str, Any]] = ()
) -> tuple[bytes, list[Buffer]]:
    """A call's arguments and carried context variables. Raises CodecError as ``dumps``."""
    packed: list[Any] = [[*args], kwargs]
    if carried:
        packed.append([[name, value] for name, value in carried])
    return dumps(packed)


def loads(body: Buffer, buffers: Sequence[Buffer] = (), types: Types | None = None) -> Any:
    """The value in a body. ``types``: those that it may name.

    Raises:
        NotAllowedError: it names a type that is not known here.
        DecodeError: the bytes are no such body.
    """
    try:
        if body[:4] != _ROOT:
            return _PLAIN.decode(body)
        return Raising(buffers, types or Types(), MAX_DEPTH).value(_MARKED.decode(body)[1])
    except NotAllowedError:
        raise
    except Exception as error:
        raise DecodeError(f"The value can't be read as data: {type(error).__name__}: {error}") from error


def _dumps(value: Any, buffers: list[Buffer] | None) -> bytes:
    if _says_it_all(value):
        try:
            body = _ENCODER.encode(value)
        except (ValueError, OverflowError):  # an int of more than 64 bits, a text with lone surrogates
            body = b""
        if body:
            return body
    try:
        return _lowered(value, buffers, exact=False)
    except (ValueError, OverflowError):
        if buffers is not None:
            buffers.clear()
        return _lowered(value, buffers, exact=True)


def _lowered(value: Any, buffers: list[Buffer] | None, *, exact: bool) -> bytes:
    return _ENCODER.encode([mark(0), Lowering(buffers, MAX_DEPTH, exact=exact).value(value)])


def _says_it_all(value: Any) -> bool:
    """Would plain msgpack give exactly this value back? (What it can't hold shows when it is encoded.)

    Level by level, so that the types of all values of a level are looked at in one call.
    """
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind in ATOMS or (kind is bytes and len(value) < OUT_OF_BAND)
    level = [value]
    for _ in range(MAX_DEPTH):
        # Of exact lists and dictionaries these are their items, and keys that are no str; atoms and bytes have none.
        level = gc.get_referents(*level)
        kinds = {*map(type, level)}
        if kinds <= ATOMS:
            return True
        if not kinds <= _MORE or (bytes in kinds and _has_bulk(level)):
            return False
        if len(level) > _WIDE:
            level = [*{id(v): v for v in level if type(v) is dict or type(v) is list}.values()]
    return False


def _has_bulk(level: list[Any]) -> bool:
    return any(type(v) is bytes and len(v) >= OUT_OF_BAND for v in level)


def _no_marks(code: int, data: memoryview) -> Any:
    raise DecodeError(f"A mark {code} where none is expected.")


_ENCODER: Final = msgpack.Encoder()
_PLAIN: Final = msgpack.Decoder(ext_hook=_no_marks)
_MARKED: Final = msgpack.Decoder()
