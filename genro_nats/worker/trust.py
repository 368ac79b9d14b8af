"""What a worker's parent refuses by the header alone, how it counts refusals, and in which codec it answers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

from genro_nats.codec.codecs import codec_of, refusal, require_data
from genro_nats.codec.frame import HEADER_SIZE, Buffer, Flag, Frame, FrameKind, encode, name_of, peek
from genro_nats.codec.functions import label
from genro_nats.errors import NotAllowedError
from genro_nats.events import Events

__all__ = ["Trust", "error_frame", "flags_in"]

_REFUSED: Final = label(NotAllowedError).encode()
_REASONS: Final = frozenset({"pickle", "by_value", "by_digest", "function", "context", "type"})


class Trust:
    """The refusals of one pool. ``strict``: the option ``only_registered``.

    Raises:
        CodecError: it needs the data codec, which is not installed.
    """

    def __init__(self, only_registered: bool, events: Events) -> None:
        self.strict = only_registered
        self._events = events
        if only_registered:
            require_data()
        self.refused: Counter[str] = Counter()

    def refuses(self, flags: int) -> bool:
        """Is a call with these flags not given to a child?"""
        return self.strict and refusal(flags) is not None

    def check(self, flags: int) -> NotAllowedError | None:
        """Why a call with these flags is not given to a child, if so; counted."""
        found = refusal(flags) if self.strict else None
        if found is not None:
            self._count(found.fields["reason"])
        return found

    def require(self, flags: int) -> None:
        """As ``check``, raised."""
        found = self.check(flags)
        if found is not None:
            raise found

    def note(self, frame: Buffer) -> None:
        """Count an ERROR frame in which a child refused a call."""
        head = peek(frame)
        if head.kind != FrameKind.ERROR or name_of(frame, head) != _REFUSED:
            return
        at = HEADER_SIZE + head.n_name + 8 * head.n_buffers
        try:
            reason = json.loads(bytes(frame[at : at + head.n_meta])).get("refused")
        except (ValueError, AttributeError):
            return  # raised by a function, not by the child
        if self.strict and reason in _REASONS:
            self._count(reason)

    def _count(self, reason: str) -> None:
        self.refused[reason] += 1
        self._events("call.not_allowed", reason=reason, count=self.refused[reason])

    def facts(self) -> dict[str, dict[str, int]]:
        """How often what was refused, for an operator; nothing where everything is taken."""
        return {"not_allowed": dict(self.refused)} if self.strict else {}


def flags_in(data: Buffer) -> int:
    """The flags of what may be a frame: 0 for what is none."""
    return peek(data).flags if len(data) >= HEADER_SIZE and bytes(data[:2]) == b"GN" else 0


def error_frame(id: bytes, error: Exception, flags: int) -> bytes:
    """An error of the parent's own as the answer to a call with these flags."""
    codec = codec_of(flags)
    name = label(type(error)).encode()
    return encode(Frame(FrameKind.ERROR, id, name, body=codec.dump_error(error), flags=flags & Flag.DATA))
