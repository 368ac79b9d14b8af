"""NumPy arrays and scalars as their bytes and back: numbers, texts and times, never objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any, Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import CodecError, DecodeError

__all__ = ["array", "array_parts", "scalar", "scalar_parts"]

_KINDS: Final = "biufcmMSU"
_DTYPE: Final = re.compile(r"[<>|=][biufcmMSU][0-9]{1,9}(\[[0-9]{0,9}[A-Za-zμ]{1,3}\])?")
_MAX_DIMENSIONS: Final = 32


def array_parts(value: Any) -> tuple[str, str, memoryview, tuple[int, ...]]:
    """The dtype's name, order (C or F), bytes and lengths of an array. Raises CodecError."""
    import numpy

    if value.ndim > _MAX_DIMENSIONS:
        raise CodecError(
            f"A NumPy array of {value.ndim} dimensions can't be sent as data: {_MAX_DIMENSIONS} are the most. "
            "Send it reshaped (array.reshape) or as a list."
        )
    dtype = _name(value.dtype)
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    flat = numpy.ascontiguousarray(value.T if order == "F" else value).reshape(-1)
    raw: Any = flat.view(numpy.uint8)
    return dtype, order, memoryview(raw), value.shape


def scalar_parts(value: Any) -> tuple[str, bytes]:
    """The dtype's name and bytes of a NumPy scalar. Raises CodecError."""
    return _name(value.dtype), value.tobytes()


def _name(dtype: Any) -> str:
    if dtype.kind not in _KINDS or dtype.hasobject or not dtype.itemsize:
        raise CodecError(
            f"A NumPy array of {dtype} can't be sent as data: convert it to numbers, texts or times, "
            "or send a list."
        )
    return str(dtype.str)


def array(dtype: Any, order: Any, data: Buffer, shape: Sequence[Any]) -> Any:
    """The array whose memory is ``data``: writable where that is. Raises what does not fit."""
    import numpy

    found = _dtype(dtype)
    sized = all(type(length) is int and length >= 0 for length in shape) and len(shape) <= _MAX_DIMENSIONS
    if not sized or prod(shape) * found.itemsize != len(memoryview(data).cast("B")):
        raise DecodeError("An array whose lengths don't fit its bytes.")
    if not prod(shape):
        return numpy.zeros(tuple(shape), found)
    return numpy.frombuffer(data, found).reshape(tuple(shape), order="F" if order == "F" else "C")


def scalar(dtype: Any, data: Any) -> Any:
    """The scalar again. Raises what does not fit."""
    import numpy

    found = _dtype(dtype)
    if type(data) is not bytes or len(data) != found.itemsize:
        raise DecodeError("A scalar that does not fit its bytes.")
    return numpy.frombuffer(data, found)[0]


def _dtype(name: Any) -> Any:
    import numpy

    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise DecodeError("An array of a type that is no data.")
    found = numpy.dtype(name)
    if found.kind not in _KINDS or found.hasobject or not found.itemsize:
        raise DecodeError(f"An array of {found}, which is no data.")
    return found
