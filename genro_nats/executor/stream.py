"""The items of one generator call, as an async iterator."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from genro_nats.errors import ExecutorError
from genro_nats.executor.engine import StreamSource

__all__ = ["Stream"]

T = TypeVar("T")


class Stream(Generic[T]):
    """``async for item in fn.stream(...)``; the call is submitted with the first item asked for.

    Leaving it early (``aclose``, the end of ``async with``, or dropping the last
    reference) stops the generator where it runs. So does cancelling a wait for an
    item: a stream is over after the first error or cancellation.
    """

    def __init__(self, begin: Callable[[], Awaitable[StreamSource]]) -> None:
        self._begin: Callable[[], Awaitable[StreamSource]] | None = begin
        self._source: StreamSource | None = None
        self._reading = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next item. Raises what the generator raised, or any ExecutorError."""
        if self._reading:
            raise ExecutorError("This stream is already being read; give each reader a stream of its own.")
        self._reading = True
        try:
            return await self._next()
        finally:
            self._reading = False

    async def _next(self) -> T:
        begin, self._begin = self._begin, None
        if begin is not None:
            self._source = await begin()
        source = self._source
        if source is None:
            raise StopAsyncIteration
        try:
            item: T = await source.receive()
        except BaseException as error:
            self._source = None
            if not isinstance(error, StopAsyncIteration):
                source.abort()
            raise
        return item

    async def aclose(self) -> None:
        """Stop the generator, if it has not ended. Doing it again does nothing."""
        self._begin = None
        source, self._source = self._source, None
        if source is not None:
            await source.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        source: Any = getattr(self, "_source", None)
        if source is not None:
            with contextlib.suppress(Exception):
                source.abort()
