"""The server's time, as far as answers tell it; the clock of this machine may be an hour wrong.

An answer's time lies between sending and receiving, on the monotonic clock: its
midpoint is off by half the round trip at most, and the fastest of a few is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from genro_nats.errors import ExecutorError, StreamError
from genro_nats.transport.jetstream import API, JetStream, answer
from genro_nats.transport.times import from_rfc3339

__all__ = ["ServerClock"]

_SAMPLES: Final = 3
_TIMEOUT: Final = 2.0  # seconds for one answer
_EVERY: Final = 300.0  # seconds; clocks drift apart by a few milliseconds meanwhile
_USER_INFO: Final = "$SYS.REQ.USER.INFO"


class ServerClock:
    """The time of a stream's leader, which is who carries out schedules and times to live.

    Servers before 2.10 don't tell it: then it is the time of the server connected to.
    """

    def __init__(self, js: JetStream, stream: str) -> None:
        self._js = js
        self._stream = stream
        self._offset: float | None = None
        self._next: asyncio.TimerHandle | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self.uncertainty = 0.0  # seconds that ``now`` may have been off by when it was refreshed

    async def start(self) -> None:
        """Ask for the time, and again every few minutes and whenever the server comes back.

        Raises:
            StreamError: no answer tells a time, or there is no such stream.
            StreamUnavailableError, ConnectionLostError: no answer for ten seconds.
        """
        self._loop = asyncio.get_running_loop()
        await self.refresh()
        self._js.connection.on_up.append(self._refresh_soon)
        self._next = self._loop.call_later(_EVERY, self._refresh_soon)

    async def aclose(self) -> None:
        """Ask no more; ``now`` goes on. Can be repeated."""
        if self._next is None:
            return
        self._next.cancel()
        self._next = None
        self._js.connection.on_up.remove(self._refresh_soon)
        if self._refreshing is not None:
            self._refreshing.cancel()

    def now(self) -> float:
        """Seconds since the epoch, for the server. Raises RuntimeError before the first refresh."""
        if self._offset is None:
            raise RuntimeError(
                "The server has not been asked for its time: await start() or refresh() first."
            )
        return time.monotonic() + self._offset

    async def refresh(self) -> None:
        """Ask for the time now. Raises as ``start``."""
        samples = [await self._js.insist(self._sample) for _ in range(_SAMPLES)]
        self.uncertainty, self._offset = min(samples)

    async def _sample(self) -> tuple[float, float]:
        """Half of the round trip, and what the server's time is ahead of the monotonic clock by."""
        found = await self._ask(f"{API}STREAM.INFO.{self._stream}", "ts")
        found = found or await self._ask(_USER_INFO, "server", "time")
        if found is None:
            raise StreamError(
                "No answer of the NATS server tells its time; it is too old, or may not be asked for "
                f"{API}STREAM.INFO.{self._stream}.",
                subject=_USER_INFO,
                code=0,
            )
        return found

    async def _ask(self, subject: str, *path: str) -> tuple[float, float] | None:
        begin = time.monotonic()
        reply = await self._js.requester.request(subject, timeout=_TIMEOUT)
        end = time.monotonic()
        found: Any = answer(reply, subject)
        for name in path:
            found = found.get(name, {})
        return ((end - begin) / 2, from_rfc3339(found) - (begin + end) / 2) if found else None

    def _refresh_soon(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = self._loop.call_later(_EVERY, self._refresh_soon)
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._loop.create_task(self._refresh_quietly())

    async def _refresh_quietly(self) -> None:
        with contextlib.suppress(ExecutorError):  # what is known still serves; it is asked again later
            await self.refresh()
