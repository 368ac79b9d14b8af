"""Errors of executors that genro-asgi answers with a status of their own."""

from __future__ import annotations

import math
from typing import Any, Final

from genro_asgi.exceptions import HTTPException

from genro_nats.errors import CallTimeoutError, ExecutorError, ExecutorOverloadError, NoWorkersError

__all__ = ["HttpNoWorkersError", "HttpOverloadError", "HttpTimeoutError", "http_error"]

_RETRY_AFTER: Final = 1.0  # seconds, where the error names none


class HttpOverloadError(ExecutorOverloadError, HTTPException):
    """``ExecutorOverloadError`` as 429, with ``Retry-After`` in whole seconds."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        HTTPException.__init__(self, 429, message, retry_after(fields))
        self.fields = fields


class HttpNoWorkersError(NoWorkersError, HTTPException):
    """``NoWorkersError`` as 503, with ``Retry-After`` in whole seconds."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        HTTPException.__init__(self, 503, message, retry_after(fields))
        self.fields = fields


class HttpTimeoutError(CallTimeoutError, HTTPException):
    """``CallTimeoutError`` as 504."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        HTTPException.__init__(self, 504, message)
        self.fields = fields


_CLASSES: Final[tuple[tuple[type[ExecutorError], type[ExecutorError]], ...]] = (
    (ExecutorOverloadError, HttpOverloadError),
    (NoWorkersError, HttpNoWorkersError),
    (CallTimeoutError, HttpTimeoutError),
)


def http_error(error: ExecutorError) -> ExecutorError:
    """The same error as one with a status; ``error`` itself if it has one, or none is meant for it."""
    if isinstance(error, HTTPException):
        return error
    for plain, http in _CLASSES:
        if isinstance(error, plain):
            return http(str(error), **error.fields)
    return error


def retry_after(fields: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """The header that says when to come again. HTTP knows whole seconds only."""
    seconds = max(1, math.ceil(fields.get("retry_after") or _RETRY_AFTER))
    return [(b"retry-after", str(seconds).encode())]
