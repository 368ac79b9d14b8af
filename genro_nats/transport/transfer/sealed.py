"""Transfer frames with seals: verified as their pieces come, chunks without being put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from genro_nats.codec.frame import HEADER_SIZE, FrameKind, peek
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Flaw, Opening
from genro_nats.transport.guard import Guard
from genro_nats.transport.reader import Feed, Taker

__all__ = ["Unsealing"]

_MAX_WORD: Final = 4096  # bytes of a frame that is no chunk


class Unsealing:
    """A ``Taker`` before another one, which sees messages without their seals.

    The last byte of a chunk is handed on once its seal was found right: so nothing counts as
    complete that is not verified. Other frames are handed on as a whole. ``inbox``: where this
    side hears, ending in a dot; ``on_flawed(pull, flaw)``: called for a message that is refused.
    """

    def __init__(
        self, guard: Guard, inbox: str, taker: Taker, on_flawed: Callable[[bytes, Flaw], object]
    ) -> None:
        self._guard = guard
        self._inbox = inbox
        self._taker = taker
        self._on_flawed = on_flawed

    def __call__(self, start: bytes, length: int) -> Feed | None:
        """A message begins."""
        at = SEAL_SIZE if start[:4] == MAGIC else 0
        head = peek(start[at:]) if len(start) >= at + HEADER_SIZE else None
        id = head.id if head is not None else b""
        chunk = head is not None and head.kind == FrameKind.CHUNK and length > SEAL_SIZE + HEADER_SIZE
        to_puller = head is not None and head.kind in (FrameKind.CHUNK, FrameKind.GONE)
        subject = self._inbox + (id.hex() if to_puller else "owner")
        opening = self._guard.opening(subject, start)
        if isinstance(opening, Flaw):
            self._on_flawed(id, opening)
            return None
        opening.update(start[SEAL_SIZE:])
        size = length - SEAL_SIZE
        if not chunk:
            return self._word(subject, opening, start[SEAL_SIZE:], size)
        # One that nobody waits for is verified too: whoever forges it is counted.
        inner = self._taker(start[SEAL_SIZE:], size) or _dropped
        return _Chunk(self, subject, id, opening, inner, size - HEADER_SIZE).feed

    def _word(self, subject: str, opening: Opening, start: bytes, size: int) -> Feed | None:
        if size > _MAX_WORD:
            self._guard.unreadable(subject, f"a word about a payload of {size:,} bytes")
            return None
        collected = bytearray(start)

        def feed(piece: memoryview) -> None:
            collected.extend(piece)
            opening.update(piece)
            if len(collected) == size:
                finish()

        def finish() -> None:
            if self._guard.judge(subject, opening, once=True) is None:
                rest = self._taker(bytes(collected[:HEADER_SIZE]), size)
                if rest is not None:
                    rest(memoryview(bytes(collected[HEADER_SIZE:])))

        if size == len(start):
            finish()
            return None
        return feed

    def flawed(self, id: bytes, flaw: Flaw) -> None:
        """What a chunk ended in."""
        self._on_flawed(id, flaw)

    def judge(self, subject: str, opening: Opening) -> Flaw | None:
        """As ``Guard.judge``. Which chunk comes next is known: none is taken twice."""
        return self._guard.judge(subject, opening, once=False)


def _dropped(piece: memoryview) -> None:
    pass


class _Chunk:
    """A chunk on its way in: ``left`` bytes of its body are still to come."""

    __slots__ = ("_id", "_inner", "_left", "_opening", "_owner", "_subject")

    def __init__(
        self, owner: Unsealing, subject: str, id: bytes, opening: Opening, inner: Feed, left: int
    ) -> None:
        self._owner = owner
        self._subject = subject
        self._id = id
        self._opening = opening
        self._inner = inner
        self._left = left

    def feed(self, piece: memoryview) -> None:
        self._opening.update(piece)
        self._left -= len(piece)
        if self._left:
            self._inner(piece)
            return
        if len(piece) > 1:
            self._inner(piece[:-1])
        flaw = self._owner.judge(self._subject, self._opening)
        if flaw is None:
            self._inner(piece[-1:])
        else:
            self._owner.flawed(self._id, flaw)
