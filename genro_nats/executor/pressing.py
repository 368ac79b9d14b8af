"""The caller's encoder of pools that compress."""

from __future__ import annotations

from genro_nats.codec.by_value import FunctionBlob
from genro_nats.codec.compression import ACCEPTS, press, require
from genro_nats.codec.frame import Frame
from genro_nats.codec.function_store import FunctionStore
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call

__all__ = ["PressingEncoder"]


class PressingEncoder(CallEncoder):
    """Compresses calls, and says in them that answers may be. Raises ConfigurationError without the extra."""

    def __init__(
        self,
        compression: str | None,
        codec: str = "pickle",
        pool: str = "",
        *,
        store: FunctionStore | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(codec, pool, store=store, by=by)
        if compression is not None:
            require(compression)
        self._compression = compression

    def _framed(
        self, call: Call, seconds: float, flags: int, *, whole: bool = False
    ) -> tuple[Frame, FunctionBlob | None]:
        frame, function = super()._framed(call, seconds, flags, whole=whole)
        if self._compression is None:
            return frame, function
        frame.flags |= ACCEPTS[self._compression]
        return press(frame, self._compression), function
