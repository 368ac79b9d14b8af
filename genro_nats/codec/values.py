"""Python values as pickle 5 bytes plus out-of-band buffers, large bytes wherever they stand among these.

Plain pickle first, because it is the fastest; cloudpickle only for what plain
pickle can't do or would do wrongly: it refers to whatever lives in
``__main__`` by name, and the receiver's ``__main__`` is another module.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Final

from genro_nats.codec import pickler
from genro_nats.codec.frame import OUT_OF_BAND, Buffer
from genro_nats.codec.modules import by_value_modules
from genro_nats.codec.pickle_file import PickleFile
from genro_nats.errors import CodecError, DecodeError

__all__ = ["dumps", "dumps_whole", "loads"]

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
    try:
        file = PickleFile()
        pickle.Pickler(file, 5, buffer_callback=file.keep).dump(value)
        body = file.body
        if not _needs_cloudpickle(body):
            return body, file.buffers
    except Exception:  # noqa: S110
        pass  # cloudpickle may manage, and explains better when it does not
    file = PickleFile()
    return _by_cloudpickle(value, file), file.buffers


def dumps_whole(value: Any) -> bytes:
    """The pickle of a value in one piece, large buffers included. Raises CodecError as ``dumps``."""
    try:
        body = pickle.dumps(value, 5)
        if not _needs_cloudpickle(body):
            return body
    except Exception:  # noqa: S110
        pass  # as above
    return _by_cloudpickle(value)


def _needs_cloudpickle(body: bytes) -> bool:
    # __main__ or __mp_main__; also as a mere text, which does no harm.
    return b"_main__" in body or bool(by_value_modules())


def _by_cloudpickle(value: Any, file: PickleFile | None = None) -> bytes:
    try:
        return pickler.dumps(value, file)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(
            f"{type(value).__qualname__} can't be pickled: {type(error).__name__}: {error}"
        ) from error


def loads(body: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """The value of a pickle. Unpickling runs code: only for bytes that are trusted.

    Raises:
        DecodeError: the bytes are no pickle, or what they refer to is missing here.
    """
    try:
        return pickle.loads(body, buffers=buffers)
    except Exception as error:
        raise DecodeError(f"The value can't be unpickled here: {type(error).__name__}: {error}") from error


def dumps_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[tuple[str, Any]] = ()
) -> tuple[bytes, list[Buffer]]:
    """A call's arguments and carried context variables, and the buffers beside them.

    Raises:
        CodecError: something among them can't be pickled.
    """
    if not kwargs and not carried and all(map(_is_plain, args)):
        return pickle.dumps((args, kwargs), 5), []
    return dumps((args, kwargs, carried) if carried else (args, kwargs))
