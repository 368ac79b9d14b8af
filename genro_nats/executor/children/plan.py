"""What a pool of children shall be, and who is told of its children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from genro_nats.codec.frame import Buffer, Head
from genro_nats.errors import WorkerLostError
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.setup import ChildSetup
from genro_nats.executor.children.work import Work

__all__ = ["Listener", "PoolPlan", "no_event"]


def no_event(name: str, **facts: object) -> None:
    """The event listener of those who have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """What a pool of children shall be.

    ``initializer`` makes the call that is run first in each child, and the
    future of its outcome. ``start_retries``: how often starting all of them may fail
    before it is given up. Times are in seconds, memory is in bytes.
    """

    name: str
    size: int
    setup: ChildSetup
    spares: int = 1
    max_tasks: int | None = None
    memory_limit: int | None = None
    imports: Sequence[str] = ()
    hints: Sequence[str] = ()
    initializer: Callable[[], tuple[Work, asyncio.Future[Any]]] | None = None
    cancel_grace: float = 1.0
    function_cache: int = 1 << 28
    start_timeout: float = 60.0
    start_retries: int = 0
    on_event: Callable[..., object] = no_event


class Listener(Protocol):
    """What the roster tells."""

    def on_frame(self, child: Child, head: Head, data: Buffer) -> None: ...
    def on_capacity(self) -> None: ...
    def on_unstarted(self, works: Sequence[Work]) -> None: ...
    def on_orphans(self, works: Sequence[Work], error: WorkerLostError) -> None: ...
    def on_starved(self, error: Exception) -> None: ...
