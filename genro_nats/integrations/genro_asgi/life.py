"""The life of a server's pools, put around the server's own ASGI lifespan.

::

    startup ─▶ start the pools ─▶ the server's startup ─▶ start those it added ─▶ .complete
    shutdown ─▶ the server's shutdown (requests end, hooks run) ─▶ drain the pools ─▶ .complete

Once ``lifespan.shutdown.complete`` is sent the process may be gone, so the drain
comes before it is forwarded, not after the server's part has returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from genro_asgi.types import Message, Receive, Send

from genro_nats.executor.registry import ExecutorRegistry

__all__ = ["PoolsLife", "drain"]

log = logging.getLogger(__name__)

_ABORT: Final = 5.0  # seconds that pools get to end calls that were not finished in time


class PoolsLife:
    """One run of the lifespan protocol. ``drain_timeout``: seconds that calls in hand get to finish."""

    def __init__(
        self, registry: ExecutorRegistry, receive: Receive, send: Send, drain_timeout: float
    ) -> None:
        self._registry = registry
        self._receive = receive
        self._send = send
        self._drain_timeout = drain_timeout
        self._replay: Message | None = None
        self._failure = ""

    async def run(self, server: Callable[[Receive, Send], Awaitable[None]]) -> None:
        """Start the pools, let ``server`` run its part, end the pools."""
        self._replay = await self._receive()
        try:
            if await self._started():
                await server(self._to_server, self._from_server)
            else:
                await drain(self._registry, 0)
                await self._send({"type": "lifespan.startup.failed", "message": self._failure})
        finally:
            # Does nothing after an orderly shutdown; ends the pools of one that was cut short.
            await drain(self._registry, 0)

    async def _started(self) -> bool:
        try:
            await self._registry.start_all()
        except Exception as error:
            self._failure = " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
            log.debug("a pool can't start", exc_info=True)
        return not self._failure

    async def _to_server(self) -> Message:
        if self._replay is not None:
            message, self._replay = self._replay, None
            return message
        if self._failure:
            # What the server's startup began is undone by its own shutdown.
            return {"type": "lifespan.shutdown"}
        return await self._receive()

    async def _from_server(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not await self._started():
            return
        if kind == "lifespan.startup.failed":
            await drain(self._registry, 0)
        elif kind.startswith("lifespan.shutdown."):
            await drain(self._registry, 0 if self._failure else self._drain_timeout)
            if self._failure:
                message = {"type": "lifespan.startup.failed", "message": self._failure}
        await self._send(message)


async def drain(registry: ExecutorRegistry, timeout: float) -> None:
    """End all pools; calls in hand get ``timeout`` seconds to finish. Bounded, and raises nothing."""
    if timeout > 0 and await _shut_down(registry, timeout, wait=True):
        return
    if timeout > 0:
        log.warning("executors not drained within %g s, calls left: %s", timeout, _pending(registry))
    if not await _shut_down(registry, _ABORT, wait=False):
        log.error("executors not ended within %g s: %s", _ABORT, _pending(registry))


async def _shut_down(registry: ExecutorRegistry, seconds: float, *, wait: bool) -> bool:
    """Whether it was done in time."""
    try:
        async with asyncio.timeout(seconds):
            await registry.shutdown_all(wait=wait)
    except TimeoutError:
        return False
    except ExceptionGroup as group:
        log.error("%s", group, exc_info=group)
    return True


def _pending(registry: ExecutorRegistry) -> str:
    counts = {name: figures.get("pending", 0) for name, figures in registry.all_metrics().items()}
    return ", ".join(f"{name}={count}" for name, count in counts.items() if count) or "none"
