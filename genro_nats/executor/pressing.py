"""The caller's encoder of pools that compress; what is large is left to who can do that apart from the loop."""

from __future__ import annotations

from typing import Any

from genro_nats.codec.by_value import FunctionBlob
from genro_nats.codec.compression import ACCEPTS, is_large, press, require
from genro_nats.codec.frame import Frame
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call

__all__ = ["PressingEncoder", "make_encoder"]


class PressingEncoder(CallEncoder):
    """Compresses calls, and says in them that answers may be. Raises ConfigurationError without the extra."""

    def __init__(self, compression: str, codec: str = "pickle", pool: str = "", **options: Any) -> None:
        super().__init__(codec, pool, **options)
        require(compression)
        self.compression = compression

    def _framed(
        self, call: Call, seconds: float, flags: int, *, whole: bool = False
    ) -> tuple[Frame, FunctionBlob | None]:
        compression = self.compression
        assert compression is not None
        frame, function = super()._framed(call, seconds, flags, whole=whole)
        frame.flags |= ACCEPTS[compression]
        return (frame if is_large(frame) else press(frame, compression)), function


def make_encoder(compression: str | None, codec: str, pool: str, **options: Any) -> CallEncoder:
    """The encoder for the option ``compression``; ``options``: as of ``CallEncoder``. Raises as that."""
    if compression is None:
        return CallEncoder(codec, pool, **options)
    return PressingEncoder(compression, codec, pool, **options)
