"""Which functions by value one child has: its parent decides what it gets and what it may forget."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from genro_nats.codec.frame import Frame, FrameKind, chunks
from genro_nats.codec.lru import ByteLRU
from genro_nats.executor.children.work import CarriedFunction
from genro_nats.transport.pipe import Parts

__all__ = ["Taught"]


class Taught:
    """Functions that a child has, ``limit`` bytes of them. No I/O: says what is to be sent to it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: ByteLRU[bytes, int] = ByteLRU(1 << 62)

    def has(self, digest: bytes) -> bool:
        """Does it have this function? Counts as a use of it."""
        return self._known.get(digest) is not None

    def lesson(self, function: CarriedFunction, in_use: Collection[bytes]) -> Iterator[Parts]:
        """The frames to be sent before a call of a function it lacks; ``in_use``: digests that its calls need."""
        self._known.put(function.digest, function.size, function.size)
        yield function.parts
        for digest in [known for known in self._known if known not in in_use and known != function.digest]:
            if self._known.size <= self._limit:
                return
            self._known.pop(digest)
            yield chunks(Frame(FrameKind.GONE, name=digest.hex().encode()))
