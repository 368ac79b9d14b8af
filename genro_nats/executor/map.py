"""``map``: one call per item, a bounded number of them at a time.

::

    items ──▶ lanes (one task each, at most ``concurrency``) ──▶ outcomes ──▶ the reader

A lane takes an item, makes the call, puts the outcome down and goes on. The
first lane starts the second when it has found an item, and so on. A window
bounds how far the lanes may run ahead of a reader that is slow, or that waits
for the outcome of an item at the front.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from genro_nats.errors import ConfigurationError, ExecutorError
from genro_nats.executor.admission import Slots
from genro_nats.executor.bridge import Signal, Spawned, spawn
from genro_nats.executor.false_end import no_false_end

__all__ = ["Mapped"]

T = TypeVar("T")
_AHEAD = 2  # outcomes not yet read plus calls in flight, per unit of concurrency


class _Outcome:
    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error


class _Lanes:
    """The tasks of a map. They hold no reference to the reader, so that dropping it can end them."""

    def __init__(
        self,
        call: Callable[[Any], Awaitable[Any]],
        items: Iterable[Any] | AsyncIterable[Any],
        concurrency: int,
        ordered: bool,
    ) -> None:
        self._call = call
        self._items = items
        self._iterator: AsyncIterator[Any] | Iterator[Any] | None = None
        self._concurrency = concurrency
        self._ordered = ordered
        self._turn = Slots("map", 1)  # an async iterator is asked by one at a time
        self._window = Slots("map", concurrency * _AHEAD)
        self._running: list[Spawned[None]] = []
        self._given = 0  # items taken from the input, its own error included
        self._read = 0
        self._exhausted = False
        self._outcomes: dict[int, _Outcome] = {}
        self._news = Signal()

    def begin(self) -> None:
        """Start, in the reader's backend."""
        if not self._running and not self._exhausted:
            self._open_lane()

    def _open_lane(self) -> None:
        self._running.append(spawn(self._lane))

    async def _lane(self) -> None:
        try:
            await self._window.take()
            while (taken := await self._take()) is not None:
                if len(self._running) < self._concurrency and not self._exhausted:
                    self._open_lane()
                await self._run(*taken)
                await self._window.take()
        finally:
            self._news.set()

    async def _take(self) -> tuple[int, Any] | None:
        """The next item with its number; None when there is none."""
        await self._turn.take()
        try:
            if self._exhausted:
                return None
            item = await self._next_item()
            self._given += 1
            return self._given - 1, item
        except StopAsyncIteration:
            self._exhausted = True
        except Exception as error:  # the input's own
            self._given += 1
            self._put(self._given - 1, _Outcome(error=error))
        finally:
            self._turn.release()
        return None

    async def _next_item(self) -> Any:
        if self._iterator is None:
            items = self._items
            self._iterator = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        if isinstance(self._iterator, AsyncIterator):
            return await anext(self._iterator)
        with no_false_end():
            item = next(self._iterator, _END)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def _run(self, index: int, item: Any) -> None:
        try:
            self._put(index, _Outcome(await self._call(item)))
        except Exception as error:
            self._put(index, _Outcome(error=error))

    def _put(self, index: int, outcome: _Outcome) -> None:
        if outcome.error is not None:
            self._exhausted = True  # nothing new is begun after an error
        self._outcomes[index] = outcome
        self._news.set()

    async def read(self) -> _Outcome | None:
        """The next outcome; None when all have been read."""
        while True:
            key = self._read if self._ordered else next(iter(self._outcomes), -1)
            outcome = self._outcomes.pop(key, None)
            if outcome is not None:
                self._read += 1
                self._window.release()
                return outcome
            if self._exhausted and self._read == self._given:
                return None
            if all(lane.done.is_set for lane in self._running):
                raise ExecutorError("The tasks of this map were cancelled from outside.")
            await self._news.wait()
            self._news = Signal()

    def cancel(self) -> None:
        """End every lane; from any thread."""
        self._exhausted = True
        for lane in self._running:
            lane.cancel()

    async def ended(self) -> None:
        """Wait until every lane has ended."""
        for lane in self._running:
            await lane.done.wait()


_END = object()


class Mapped(Generic[T]):
    """``async for result in fn.map(items)``.

    The first error raises at its place (``ordered``) or when it happens, and
    cancels the rest. ``aclose``, the end of ``async with``, dropping the last
    reference (``break``), and cancelling a wait for a result do so too. Belongs to
    the event loop that reads it first.
    """

    def __init__(
        self,
        call: Callable[[Any], Awaitable[T]],
        items: Iterable[Any] | AsyncIterable[Any],
        concurrency: int,
        ordered: bool = True,
    ) -> None:
        if type(concurrency) is not int or concurrency < 1:
            raise ConfigurationError(
                f"concurrency is {concurrency!r}: use a whole number from 1 on.", option="concurrency"
            )
        self._lanes = _Lanes(call, items, concurrency, ordered)
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next result. Raises what the call, or the input, raised."""
        if self._over:
            raise StopAsyncIteration
        self._lanes.begin()
        try:
            outcome = await self._lanes.read()
        except BaseException:
            self._end()
            raise
        if outcome is None:
            self._end()
            raise StopAsyncIteration
        if outcome.error is not None:
            await self.aclose()
            with no_false_end():
                raise outcome.error
        value: T = outcome.value
        return value

    async def aclose(self) -> None:
        """Cancel what is in flight, and wait until it has ended. Doing it again does nothing."""
        self._end()
        await self._lanes.ended()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._lanes.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self._end()
