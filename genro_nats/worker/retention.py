"""Replies kept until their callers have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from genro_nats.codec.frame import Buffer

__all__ = ["Kept", "Retention"]

RESEND: Final = 2.0  # seconds without an acknowledgement after which a reply is sent again
GIVE_UP: Final = 60.0  # seconds after which its caller counts as gone
_LIMIT: Final = 64 << 20  # bytes kept at most; beyond, the oldest go first


class Kept(NamedTuple):
    """A reply, where it went, when it was first and last sent (event loop time).

    ``payload``: the id of what it refers to, if it does.
    """

    subject: str
    data: Buffer
    first: float
    last: float
    payload: bytes = b""


class Retention:
    """What was answered and not yet acknowledged, oldest first. Pure bookkeeping, no I/O.

    ``on_drop`` is called with the id of each payload that is no longer referred to.
    """

    def __init__(
        self, limit: int = _LIMIT, on_drop: Callable[[bytes], object] = lambda payload: None
    ) -> None:
        self._limit = limit
        self._on_drop = on_drop
        self._kept: dict[bytes, Kept] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, id: bytes, subject: str, data: Buffer, now: float, payload: bytes = b"") -> None:
        """A reply was sent."""
        self.drop(id)
        self._kept[id] = Kept(subject, data, now, now, payload)
        self._size += len(data)
        while self._size > self._limit and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))

    def drop(self, id: bytes) -> None:
        """Its caller has it."""
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._size -= len(kept.data)
            if kept.payload:
                self._on_drop(kept.payload)

    def touch(self, id: bytes, now: float) -> None:
        """Its caller is at it: neither send it again nor give it up for now."""
        kept = self._kept.get(id)
        if kept is not None:
            self._kept[id] = kept._replace(first=now, last=now)

    def get(self, id: bytes) -> Kept | None:
        """The reply of a call, if it is still kept."""
        return self._kept.get(id)

    def due(self, now: float) -> Iterator[Kept]:
        """Replies to be sent again now; those too old are forgotten."""
        for id, kept in list(self._kept.items()):
            if now - kept.first > GIVE_UP:
                self.drop(id)
            elif now - kept.last >= RESEND:
                self._kept[id] = kept._replace(last=now)
                yield kept
