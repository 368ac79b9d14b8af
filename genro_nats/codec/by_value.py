"""Functions by value: pickled once, named by digest and Python version, sent to who lacks them.

A function's bytes are a FUNCTION frame; its digest is the SHA-256 of what determines how these are read:
the number of buffers, the length of the body, and all that follows the name.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from genro_nats.codec import values
from genro_nats.codec.frame import HEADER_SIZE, NO_ID, Buffer, Frame, FrameKind, Head, chunks, size
from genro_nats.codec.modules import as_by_value
from genro_nats.codec.variables import variables
from genro_nats.errors import CodecError, DecodeError, PythonVersionError

__all__ = [
    "FIELD_SIZE",
    "INLINE",
    "VERSION",
    "FunctionBlob",
    "FunctionField",
    "check_version",
    "digest_in",
    "digest_of",
    "function_field",
    "inline_field",
    "opened_inline",
    "pickled",
]

INLINE: Final = (
    1024  # bytes of a pickle up to which it travels with each call: an entry in a cache costs as much
)
VERSION: Final = bytes(sys.version_info[:2])
_FIELD: Final = struct.Struct("!2sQ32s")
FIELD_SIZE: Final = _FIELD.size
_SHAPE: Final = struct.Struct("!HQ")


class FunctionField(NamedTuple):
    """How a call by digest names its function, at the start of its meta. ``size``: bytes of the FUNCTION frame."""

    version: bytes
    size: int
    digest: bytes


class FunctionBlob:
    """A function's bytes: the ``parts`` of a FUNCTION frame. ``inline``: the first buffer of a call, if small."""

    __slots__ = ("__weakref__", "digest", "field", "inline", "parts", "size")

    def __init__(self, body: bytes, buffers: Sequence[Buffer]) -> None:
        # Kept apart from the caller's own, which may change before somebody asks for them.
        copies = [bytes(b) if isinstance(b, bytes) else bytearray(b) for b in buffers]
        unnamed = chunks(Frame(FrameKind.FUNCTION, body=body, buffers=copies))
        self.digest = _digest(len(copies), len(body), unnamed[2:])
        name = self.digest.hex().encode()
        self.parts = chunks(Frame(FrameKind.FUNCTION, NO_ID, name, body=body, buffers=copies))
        self.size = sum(map(size, self.parts))
        self.field = _FIELD.pack(VERSION, self.size, self.digest)
        self.inline = inline_field(body) if len(body) <= INLINE and not buffers else None

    def answer(self, id: bytes) -> list[Buffer]:
        """The frame as the answer to a FETCH of that id."""
        return [bytes(self.parts[0][: HEADER_SIZE - 16]) + id, *self.parts[1:]]


def digest_of(data: Buffer, head: Head) -> bytes:
    """The digest of the function in a FUNCTION frame whose header was checked."""
    return _digest(head.n_buffers, head.n_body, [memoryview(data)[HEADER_SIZE + head.n_name :]])


def _digest(n_buffers: int, n_body: int, rest: Sequence[Buffer]) -> bytes:
    found = hashlib.sha256(_SHAPE.pack(n_buffers, n_body))
    for part in rest:
        found.update(part)
    return found.digest()


def function_field(data: Buffer, head: Head) -> FunctionField:
    """What a call by digest says of its function; ``data``: the call's frame, checked.

    Raises:
        DecodeError: its meta does not begin with such a field.
    """
    if head.n_meta < FIELD_SIZE:
        raise DecodeError("A call by digest without the digest.", id=head.id)
    return FunctionField._make(_FIELD.unpack_from(data, HEADER_SIZE + head.n_name + 8 * head.n_buffers))


def digest_in(meta: bytes) -> bytes:
    """The digest in the meta of a call by digest."""
    return meta[FIELD_SIZE - 32 : FIELD_SIZE]


def inline_field(pickle: bytes) -> bytes:
    """The first buffer of a call that carries its function."""
    return VERSION + pickle


def opened_inline(field: Buffer, name: str) -> bytes:
    """The pickle in such a buffer. Raises PythonVersionError."""
    check_version(bytes(field[:2]), name)
    return bytes(field[2:])


def check_version(version: bytes, name: str) -> None:
    """Can this Python run a function that was pickled by that one?

    Raises:
        PythonVersionError: it is of another minor version, and code differs between those.
    """
    if version == VERSION:
        return
    theirs, ours = (".".join(map(str, known)) for known in (version, VERSION))
    raise PythonVersionError(
        f"The function {name} was sent by value from Python {theirs}; this worker runs Python {ours}, which can't "
        "run its code. Bring caller and worker to the same minor version of Python, or define the function in a "
        "module that both can import.",
        function=name,
        caller=theirs,
        worker=ours,
    )


def pickled(function: Callable[..., Any], name: str, module: str = "", *, whole: bool = False) -> Any:
    """The pickle of a function by value, and its buffers; ``whole``: the pickle alone, with all in it.

    ``module``: what lives there goes by value too, as what lives in ``__main__`` does.

    Raises:
        CodecError: something in its closure can't be pickled; the text names the variable.
    """
    try:
        with as_by_value(module):
            return values.dumps_whole(function) if whole else values.dumps(function)
    except CodecError as error:
        raise _unsendable(function, name, module, error) from error


def _unsendable(function: Callable[..., Any], name: str, module: str, error: CodecError) -> CodecError:
    """The same error, saying which variable it was."""
    found = {"function": name}
    what = f"The function {name}"
    with as_by_value(module):
        for variable, value in variables(function, module):
            try:
                values.dumps(value)
            except CodecError as culprit:
                what, error, found["variable"] = (
                    f"The variable {variable!r} of the function {name}",
                    culprit,
                    variable,
                )
                break
    # What is refused, and not just impossible to pickle, names its own way out.
    way = (
        " Define the function at the top of an importable module, or keep what can't be pickled out of its closure."
        if error.__cause__ is not None
        else ""
    )
    return CodecError(f"{what} can't be sent: {error}.{way}", **found)
