"""The two codecs behind one interface, and what one side takes from the wire.

A frame with the flag DATA has a body of the data codec, any other a pickle. A call's
replies, items, progress, errors and checkpoints are of the codec of the call.
Turning a value into bytes is always safe; ``Codecs`` decides what is turned back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Final, Protocol

from genro_nats.codec import exceptions, values
from genro_nats.codec.datatypes import Types
from genro_nats.codec.frame import Buffer, Flag
from genro_nats.codec.loaded import is_class, loaded
from genro_nats.errors import CodecError, DecodeError, NotAllowedError

__all__ = ["DATA", "PICKLE", "Codec", "Codecs", "codec_named", "codec_of", "refusal", "require_data"]


class Codec(Protocol):
    """Values to bytes. ``flag``: what frames of this codec carry in their flags."""

    flag: int

    def dumps_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[tuple[str, Any]] = ()
    ) -> tuple[bytes, list[Buffer]]:
        """A call's arguments and carried variables. Raises CodecError."""

    def dumps(self, value: Any) -> tuple[bytes, list[Buffer]]:
        """A value and the buffers beside it. Raises CodecError."""

    def dumps_whole(self, value: Any) -> bytes:
        """A value in one piece. Raises CodecError."""

    def dump_error(self, error: BaseException) -> bytes:
        """An exception with all that belongs to it. Never raises."""


class _Pickle:
    flag = 0

    dumps_call = staticmethod(values.dumps_call)
    dumps = staticmethod(values.dumps)
    dumps_whole = staticmethod(values.dumps_whole)
    dump_error = staticmethod(exceptions.dump_error)


class _Data:
    flag = Flag.DATA

    def dumps_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], carried: Sequence[tuple[str, Any]] = ()
    ) -> tuple[bytes, list[Buffer]]:
        return _data().dumps_call(args, kwargs, carried)  # type: ignore[no-any-return]

    def dumps(self, value: Any) -> tuple[bytes, list[Buffer]]:
        return _data().dumps(value)  # type: ignore[no-any-return]

    def dumps_whole(self, value: Any) -> bytes:
        return _data().dumps_whole(value)  # type: ignore[no-any-return]

    def dump_error(self, error: BaseException) -> bytes:
        try:
            dumps = _data().dumps_whole
        except CodecError:
            # The extra is missing here, which is perhaps what the error says: no more than texts then.
            return json.dumps(exceptions.structure(error, _nothing)).encode()
        return dumps(exceptions.structure(error, dumps))  # type: ignore[no-any-return]


PICKLE: Final[Codec] = _Pickle()
DATA: Final[Codec] = _Data()


def codec_named(name: str) -> Codec:
    """The codec of the option ``codec``."""
    return DATA if name == "data" else PICKLE


def codec_of(flags: int) -> Codec:
    """The codec of a frame with these flags; its answers are of the same."""
    return DATA if flags & Flag.DATA else PICKLE


class Codecs:
    """What one side takes from the wire.

    ``only_data``: nothing is ever unpickled. ``whose``: who refuses, for the text of errors.
    """

    def __init__(self, *, only_data: bool = False, whose: str = "this side") -> None:
        self.only_data = only_data
        self._whose = whose
        self._types = Types()

    def knows(self, function: Callable[..., Any]) -> bool:
        """Have its types been learned?"""
        return self._types.knows(function)

    def learn(self, function: Callable[..., Any]) -> None:
        """Take the types that this function's annotations name."""
        self._types.learn(function)

    def loads(self, flags: int, body: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
        """The value in a frame's body.

        Raises:
            NotAllowedError: it is a pickle, or names a type, that this side does not take.
            DecodeError: the bytes are none of that codec, or what they refer to is missing.
        """
        if flags & Flag.DATA:
            return _data().loads(body, buffers, self._types)
        self._require_trust()
        return values.loads(body, buffers)

    def load_error(self, flags: int, body: Buffer) -> BaseException:
        """The exception in an ERROR frame's body. Raises as ``loads``."""
        if not flags & Flag.DATA:
            self._require_trust()
            return exceptions.load_error(body)
        found = _texts(body) if bytes(body[:1]) == b"{" else self.loads(flags, body)
        return exceptions.rebuilt(found, self._load_part, _loaded_type)

    def _load_part(self, body: Any) -> Any:
        if not isinstance(body, bytes):
            raise DecodeError("A part of an error that is no bytes.")
        return self.loads(Flag.DATA, body)

    def _require_trust(self) -> None:
        if self.only_data:
            raise NotAllowedError(
                f"A pickle came where {self._whose} takes data only (codec='data'): the other side does not "
                "run genro-nats with this option, or somebody else sent it. It was not opened.",
                reason="pickle",
            )


def require_data() -> None:
    """Is the data codec installed? Raises CodecError, saying how to get it."""
    _data()


def refusal(flags: int) -> NotAllowedError | None:
    """Why a worker that runs only registered functions does not take a call with these flags, if so."""
    if not flags & Flag.DATA:
        return NotAllowedError(
            "This worker takes data only (--only-registered), and the call is a pickle: "
            "state codec='data' for the caller's pool.",
            reason="pickle",
        )
    if flags & (Flag.BY_VALUE | Flag.BY_DIGEST):
        return NotAllowedError(
            "This worker runs registered functions only (--only-registered), and the call brings its function "
            "with it: call one that stands decorated in a module of the worker, or is listed with --allow.",
            reason="by_value" if flags & Flag.BY_VALUE else "by_digest",
        )
    return None


@cache
def _data() -> ModuleType:
    try:
        from genro_nats.codec import data
    except ImportError as error:
        raise CodecError(
            f'The data codec needs msgspec: pip install "genro-nats[data]" ({error}).', extra="data"
        ) from None
    return data


def _texts(body: Buffer) -> Any:
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"An error reply that can't be read: {error}") from error


def _nothing(value: Any) -> bytes:
    raise CodecError("The data codec is not installed here.")


def _loaded_type(node: dict[str, Any]) -> Any:
    """The type of an exception, if its module is imported here: nothing is imported because a message says so."""
    found = loaded(node["type"])
    if not is_class(found):
        raise TypeError(f"the module of {node['type']} is not imported here")
    return found
