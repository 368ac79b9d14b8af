"""Python values as pickle 5 bytes plus out-of-band buffers.

Plain pickle first, because it is the fastest; cloudpickle only for what plain
pickle can't do or would do wrongly: it refers to whatever lives in
``__main__`` by name, and the receiver's ``__main__`` is another module.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Final

from genro_nats.codec import pickler
from genro_nats.codec.frame import Buffer
from genro_nats.codec.modules import by_value_modules
from genro_nats.errors import CodecError, DecodeError

__all__ = ["dumps", "dumps_whole", "loads"]

OUT_OF_BAND: Final = 64 * 1024  # bytes; below it a copy is cheaper than a buffer of its own
_BULK: Final = (bytes, bytearray)
_PLAIN: Final = frozenset({type(None), bool, int, float, str})  # nothing in them needs a second look


def _is_plain(value: Any) -> bool:
    """Can it be pickled without a second look?"""
    kind = type(value)
    return kind in _PLAIN or (kind is bytes and len(value) < OUT_OF_BAND)


def dumps(value: Any) -> tuple[bytes, list[Buffer]]:
    """The pickle of a value, and the buffers it leaves out.

    Raises:
        CodecError: the value can't be pickled; the text says which type and why.
    """
    if _is_plain(value):
        return pickle.dumps(value, 5), []
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        with memoryview(buffer) as view:
            if view.nbytes < OUT_OF_BAND:
                return True
        raw = buffer.raw()
        buffers.append(raw.obj if isinstance(raw.obj, bytes) and len(raw.obj) == raw.nbytes else raw)
        return False

    try:
        body = pickle.dumps(value, 5, buffer_callback=keep)
        if b"_main__" not in body and not by_value_modules():  # __main__ or __mp_main__
            return body, buffers
    except Exception:  # noqa: S110
        pass  # cloudpickle may manage, and explains better when it does not
    buffers.clear()
    try:
        return pickler.dumps(value, keep), buffers
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(
            f"{type(value).__qualname__} can't be pickled: {type(error).__name__}: {error}"
        ) from error


def dumps_whole(value: Any) -> bytes:
    """The pickle of a value in one piece, large buffers included. Raises CodecError as ``dumps``."""
    body, buffers = dumps(value)
    return pickler.dumps(value) if buffers else body


def loads(body: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """The value of a pickle. Unpickling runs code: only for bytes that are trusted.

    Raises:
        DecodeError: the bytes are no pickle, or what they refer to is missing here.
    """
    try:
        return pickle.loads(body, buffers=buffers)
    except Exception as error:
        raise DecodeError(f"The value can't be unpickled here: {type(error).__name__}: {error}") from error


def lift(value: Any) -> Any:
    """Large bytes wrapped so that pickle leaves them out of band; anything else as it is."""
    if type(value) in _BULK and len(value) >= OUT_OF_BAND:
        return pickle.PickleBuffer(value) if type(value) is bytes else _Lifted(value)
    return value


class _Lifted:
    """A bytearray that travels as a buffer and arrives as a bytearray."""

    def __init__(self, value: bytearray) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return bytearray, (pickle.PickleBuffer(self.value),)


def dumps_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[tuple[str, Any]] = ()
) -> tuple[bytes, list[Buffer]]:
    """A call's arguments and carried context variables, large bytes among the arguments out of band.

    Raises:
        CodecError: something among them can't be pickled.
    """
    if not kwargs and not carried and all(map(_is_plain, args)):
        return pickle.dumps((args, kwargs), 5), []
    if kwargs:
        kwargs = {name: lift(value) for name, value in kwargs.items()}
    args = tuple(map(lift, args))
    return dumps((args, kwargs, carried) if carried else (args, kwargs))
