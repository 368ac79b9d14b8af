"""When a caller stops waiting: a worker that fell silent, a server that stays away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

from genro_nats.errors import ConnectionLostError
from genro_nats.executor.nats_pending import Pending
from genro_nats.transport.nats import Connection

__all__ = ["SILENCE", "Silence"]

SILENCE: Final = 5.0  # seconds without a beat after which a worker counts as lost
_WATCH: Final = 0.5  # seconds between two looks for silence
_GRACE: Final = 5.0  # seconds after a reconnect in which workers may still be on their way back


class Silence:
    """Looks after calls as long as there are any; ``on_lost(pending)``: its worker fell silent.

    ``limit``: seconds that calls wait out a lost connection.
    """

    def __init__(
        self,
        connection: Connection,
        pending: Mapping[bytes, Pending],
        limit: float,
        on_lost: Callable[[Pending], None],
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._limit = limit
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._down_since: float | None = None
        self._returned_at = -inf
        self.watcher: asyncio.Task[None] | None = None

    @property
    def just_returned(self) -> bool:
        """May workers still be on their way back after an outage?"""
        return self._loop.time() - self._returned_at < _GRACE

    def watch(self) -> None:
        """There are calls."""
        if self.watcher is None:
            self.watcher = self._loop.create_task(self._watch())

    def down(self) -> None:
        """The server is away."""
        self._down_since = self._loop.time()

    def up(self) -> None:
        """The server is back, and workers get time to say so."""
        self._down_since = None
        self._returned_at = now = self._loop.time()
        for pending in self._pending.values():
            pending.heard = now

    async def _watch(self) -> None:
        last = self._loop.time()
        while True:
            await asyncio.sleep(_WATCH)
            now = self._loop.time()
            late, last = now - last - _WATCH, now
            if not self._pending:
                self.watcher = None
                return
            # A loop that was blocked has not read its messages yet: no silence of others.
            self._look(now, late if late > _WATCH else 0.0)

    def _look(self, now: float, late: float) -> None:
        if self._down_since is not None:
            if now - self._down_since > self._limit:
                self._fail_all()
            return
        for pending in list(self._pending.values()):
            pending.heard += late
            # A pull in progress watches over itself, and nobody has what is not sent yet.
            idle = pending.pulling is None and pending.data and not pending.outcome.done()
            if idle and now - pending.heard > SILENCE:
                self._on_lost(pending)

    def _fail_all(self) -> None:
        for pending in list(self._pending.values()):
            pending.fail(
                ConnectionLostError(
                    f"The NATS server at {self._connection.shown} has been away for {self._limit:g} s "
                    "(disconnect_timeout). The call may have run.",
                    url=self._connection.shown,
                )
            )
