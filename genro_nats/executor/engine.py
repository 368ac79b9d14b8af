"""The seam between the public executors and what runs their calls in one asyncio event loop."""

from __future__ import annotations

from typing import Any, Protocol

from genro_nats.message import Call

__all__ = ["Engine", "StreamSource"]


class StreamSource(Protocol):
    """The items of one remote generator."""

    async def receive(self) -> Any:
        """The next item. Raises StopAsyncIteration at the end, or what the generator raised."""

    async def aclose(self) -> None:
        """Stop the remote generator, if it has not ended."""

    def abort(self) -> None:
        """As ``aclose`` without waiting; call it in the engine's loop."""


class Engine(Protocol):
    """Runs calls. Everything but ``abandon`` is called in the loop that started it."""

    async def start(self) -> None:
        """Make ready; raises what prevents it."""

    async def aclose(self, wait: bool = True) -> None:
        """End; with ``wait`` the calls in hand are finished first."""

    def abandon(self) -> None:
        """End at once, when the loop is gone."""

    async def run(self, call: Call) -> Any:
        """The call's value. Cancelling the await cancels the call."""

    def stream(self, call: Call) -> StreamSource:
        """The items of a generator function's call; it starts with the first ``receive``."""

    def facts(self) -> dict[str, Any]:
        """Figures for the pool's metrics."""
