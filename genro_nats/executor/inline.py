"""Kind ``inline``: calls run right where they are awaited."""

from __future__ import annotations

from typing import Any

from genro_nats.executor.engine import StreamSource
from genro_nats.executor.pool import Pool
from genro_nats.message import Call

__all__ = ["InlineExecutor"]


class InlineExecutor(Pool):
    """Runs each call in the task that awaits it; async functions are awaited there.

    What ``bypass`` makes of any kind. Nothing can interrupt a sync function that
    runs in the event loop's own thread: its deadline has no effect, and the loop
    stands still meanwhile. The initializer runs once, before the first call.
    """

    kind = "inline"

    @property
    def map_concurrency(self) -> int:
        """Calls that ``map`` keeps in flight unless told otherwise."""
        return self.options.concurrency

    @property
    def task_slots(self) -> int:
        """Tasks that run at the same time; sync functions nevertheless run one after the other."""
        return self.options.concurrency

    def _is_inline(self) -> bool:
        return True

    async def _run(self, call: Call) -> Any:
        return await self._run_here(call)

    async def _source(self, call: Call) -> StreamSource:
        return await self._source_here(call)

    async def _open(self) -> None:
        self._initialise()
