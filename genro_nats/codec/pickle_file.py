"""A file for a pickler, with which large bytes and buffers stay out of the pickle, wherever in a value they stand.

Pickle asks nobody whether exact bytes and bytearrays may be buffers of their own. But CPython's pickler hands
what is as long as a frame to its file as it is, uncopied, after a write that ends in its opcode and length
(``_Pickler_write_bytes`` in Modules/_pickle.c). In their place goes the opcode that takes the next buffer.
"""

from __future__ import annotations

import pickle
from typing import Any, Final, NamedTuple

from genro_nats.codec.frame import MAX_VALUE_BUFFERS, OUT_OF_BAND, Buffer

__all__ = ["PickleFile", "as_bytearray"]

_START: Final = pickle.PROTO + b"\x05"
_FRAME_HEADER: Final = 9  # opcode and length; below four bytes there is none
_BYTES: Final = pickle.NEXT_BUFFER
_BYTEARRAY: Final = b"c%b\nas_bytearray\n" % __name__.encode() + _BYTES + pickle.TUPLE1 + pickle.REDUCE


class _Large(NamedTuple):
    """What an opcode announces: behind ``header`` bytes comes something of this type."""

    header: int
    kind: type
    instead: bytes


_LARGE: Final = {
    pickle.BINBYTES: _Large(5, bytes, _BYTES),
    pickle.BINBYTES8: _Large(9, bytes, _BYTES),
    pickle.BYTEARRAY8: _Large(9, bytearray, _BYTEARRAY),
    pickle.BINUNICODE: _Large(5, str, b""),
    pickle.BINUNICODE8: _Large(9, str, b""),
}


class PickleFile:
    """What one pickler writes. ``buffers``: what it left out, in the order in which the pickle takes them."""

    __slots__ = ("_may_announce", "_pieces", "buffers")

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._pieces: list[Any] = []
        self._may_announce = False  # is the last piece of the pickler's own, and not what a value holds?

    @property
    def body(self) -> bytes:
        """The pickle, once it is complete."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, piece: Buffer) -> None:
        """What the pickler calls with a frame, or with something that is as long as one."""
        large = _announced(self._pieces[-1], piece) if self._may_announce else None
        self._may_announce = large is None
        if large is None or type(piece) is not large.kind or len(self.buffers) >= MAX_VALUE_BUFFERS:
            self._pieces.append(piece)
        else:
            self._pieces[-1] = memoryview(self._pieces[-1])[: -large.header]
            self._pieces.append(large.instead)
            # A view keeps a bytearray from being resized while it is on its way.
            self.buffers.append(memoryview(piece) if isinstance(piece, bytearray) else piece)

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """What the pickler asks of each ``PickleBuffer``: is it to be copied into the pickle?"""
        with memoryview(buffer) as view:
            if view.nbytes < OUT_OF_BAND or len(self.buffers) >= MAX_VALUE_BUFFERS:
                return True
        raw = buffer.raw()
        self.buffers.append(raw.obj if isinstance(raw.obj, bytes) and len(raw.obj) == raw.nbytes else raw)
        return False


def as_bytearray(buffer: Buffer) -> bytearray:
    """A bytearray again, not copied if it is one. Pickles name this: it can't be renamed or moved."""
    return buffer if isinstance(buffer, bytearray) else bytearray(buffer)


def _announced(own: bytes, piece: Any) -> _Large | None:
    """Does this piece of a pickle, a frame and perhaps an opcode behind it, announce the next one?"""
    at = len(_START) if own.startswith(_START) else 0
    if own[at : at + 1] == pickle.FRAME:
        at += _FRAME_HEADER + int.from_bytes(own[at + 1 : at + _FRAME_HEADER], "little")
    else:
        at = len(own) - (5 if len(own) - at < 9 else 9)
    large = _LARGE.get(own[at : at + 1]) if at >= 0 else None
    # Its length is stated behind it: should the layout ever change, nothing is taken for something else.
    stated = int.from_bytes(own[at + 1 :], "little")
    return large if large is not None and stated == memoryview(piece).nbytes else None
