"""Kind ``memory``: a pool whose calls wait until the test runs them.

::

    submit ─▶ call frame ─▶ held ─▶ (the test: run_next) ─▶ function ─▶ reply frame ─▶ the caller

Calls and replies pass through the real codec, so what would not travel to a
worker fails here too. Nothing runs by itself, and ``seed`` shuffles the order
the same way each time.
"""

from __future__ import annotations

import random
import time
from typing import Any

import anyio
import anyio.lowlevel

from genro_nats.config import PoolOptions
from genro_nats.errors import ExecutorError
from genro_nats.executor.admission import closed_error
from genro_nats.executor.bridge import Signal, within_deadline
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.pool import Pool
from genro_nats.executor.wire import CallEncoder
from genro_nats.message import Call
from genro_nats.testing.held import HeldCall, HeldStream

__all__ = ["HeldCall", "MemoryExecutor"]


class MemoryExecutor(Pool):
    """Holds each call until ``run_next`` or ``run_all``; functions run in the task that runs them.

    ``seed``: run calls in a random order, the same for the same seed; None: in order of
    arrival. ``hold``: False runs each call as it comes, in its caller's task.
    Deadlines count while a call is held. ``shutdown(wait=True)`` runs what is held.
    """

    kind = "memory"

    def __init__(
        self,
        name: str = "default",
        options: PoolOptions | None = None,
        *,
        seed: int | None = None,
        hold: bool = True,
        **stated: Any,
    ) -> None:
        super().__init__(name, options, **stated)
        self._random = None if seed is None else random.Random(seed)
        self._hold = hold
        self._held: list[HeldCall] = []
        self._arrived = Signal()
        self._encoder = CallEncoder()

    # -- for tests ----------------------------------------------------------

    @property
    def pending(self) -> tuple[HeldCall, ...]:
        """The calls that are held, in order of arrival."""
        return tuple(self._held)

    async def wait_pending(self, count: int = 1, timeout: float = 5.0) -> tuple[HeldCall, ...]:
        """Wait until at least so many calls are held.

        Raises:
            ExecutorError: they were not, within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while len(self._held) < count:
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())) as scope:
                await self._arrived.wait()
            if scope.cancelled_caught:
                raise ExecutorError(
                    f"Executor '{self.name}' holds {len(self._held)} calls after {timeout:g} s; "
                    f"the test waits for {count}.",
                    executor=self.name,
                )
            self._arrived = Signal()
        return self.pending

    async def run_next(self, timeout: float = 5.0) -> HeldCall:
        """Run one held call to its end, waiting for one to come if need be; which one it was.

        What the function raises goes to its caller. Raises as ``wait_pending``.
        """
        await self.wait_pending(1, timeout)
        index = 0 if self._random is None else self._random.randrange(len(self._held))
        held = self._held[index]
        await held.run()
        return held

    async def run_all(self) -> int:
        """Run held calls until there are none, those that come meanwhile too; how many."""
        count = 0
        while self._held:
            await self.run_next()
            count += 1
            await anyio.lowlevel.checkpoint()  # callers go on, and may call again
        return count

    # -- the kind -----------------------------------------------------------

    async def _run(self, call: Call) -> Any:
        held = self._take_in(HeldCall(call, self._encoder, self._drop))
        try:
            await within_deadline(call, self._answered, held)
        finally:
            self._drop(held)
            held.give_up()
        return held.value()

    async def _answered(self, held: HeldCall) -> None:
        if not self._hold:
            await held.run()
        await held.done.wait()

    async def _source(self, call: Call) -> StreamSource:
        held = HeldStream(call, self._encoder, self._drop)
        self._take_in(held)
        if not self._hold:
            await held.run()
        return held

    def _take_in(self, held: HeldCall) -> HeldCall:
        if self._closing is not None and self._closing.is_set:
            raise closed_error(self.name)
        self._initialise()
        self._held.append(held)
        self._arrived.set()
        return held

    def _drop(self, held: HeldCall) -> None:
        if held in self._held:
            self._held.remove(held)

    async def _open(self) -> None:
        self._initialise()

    async def shutdown(self, wait: bool = True) -> None:
        """Accept no more calls and end; with ``wait`` the held calls are run first."""
        if wait and self._closing is None:
            await self.run_all()
        await super().shutdown(wait)

    async def _close(self, wait: bool) -> None:
        held, self._held = self._held, []
        for call in held:
            call.fail(closed_error(self.name))
