"""The caller's encoder of pools that compress."""

from __future__ import annotations

from genro_nats.codec.compression import ACCEPTS, press, require
from genro_nats.codec.frame import Frame
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call

__all__ = ["PressingEncoder"]


class PressingEncoder(CallEncoder):
    """Compresses calls, and says in them that answers may be. Raises ConfigurationError without the extra."""

    def __init__(self, compression: str | None) -> None:
        super().__init__()
        if compression is not None:
            require(compression)
        self._compression = compression

    def frame(self, call: Call, seconds: float, flags: int = 0) -> Frame:
        """As ``CallEncoder.frame``."""
        frame = super().frame(call, seconds, flags)
        if self._compression is None:
            return frame
        frame.flags |= ACCEPTS[self._compression]
        return press(frame, self._compression)
