"""Python values as data only: msgpack through ``msgspec``, with marks for what msgpack has no word for.

A body is plain msgpack where that says it all. Otherwise it is an array of two, the
mark 0 and the value, in which an array that begins with a mark stands for a value of
another type (``tags.py``). Reading a body never runs or imports anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import msgpack

from genro_nats.codec.datatypes import Types
from genro_nats.codec.frame import Buffer
from genro_nats.codec.tags import ATOMS, Lowering, Raising, mark
from genro_nats.errors import DecodeError, NotAllowedError

__all__ = ["dumps", "dumps_call", "dumps_whole", "loads"]

OUT_OF_BAND: Final = 64 * 1024  # bytes; as of pickles
MAX_DEPTH: Final = 200
_KEYS: Final = frozenset({str, int})
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
    if _says_it_all(value, MAX_DEPTH):
        try:
            body = _ENCODER.encode(value)
        except (ValueError, OverflowError):  # an int of more than 64 bits, a text with lone surrogates
            body = b""
        if body:
            return body
    lowered = Lowering(buffers, OUT_OF_BAND, MAX_DEPTH).value(value)
    return _ENCODER.encode([mark(0), lowered])


def _says_it_all(value: Any, depth: int) -> bool:
    """Would plain msgpack give exactly this value back? (What it can't hold shows when it is encoded.)"""
    kind = type(value)
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is bytes:
        return len(value) < OUT_OF_BAND
    elif kind is not list:
        return kind in ATOMS
    if ATOMS.issuperset(map(type, value)):
        return True
    return depth > 0 and all(type(v) in ATOMS or _says_it_all(v, depth - 1) for v in value)


def _no_marks(code: int, data: memoryview) -> Any:
    raise DecodeError(f"A mark {code} where none is expected.")


_ENCODER: Final = msgpack.Encoder()
_PLAIN: Final = msgpack.Decoder(ext_hook=_no_marks)
_MARKED: Final = msgpack.Decoder()
