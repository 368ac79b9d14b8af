"""Kind ``thread``: calls run on threads of this process."""

from __future__ import annotations

from typing import Any

from genro_nats.config import PoolOptions
from genro_nats.executor.admission import closed_error
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.pool import Pool
from genro_nats.executor.threads import Threads, ThreadSource
from genro_nats.message import Call

__all__ = ["ThreadExecutor", "ThreadedPool"]


class ThreadedPool(Pool):
    """A pool with threads; they are made when a call first needs one, anew if their initializer failed."""

    def __init__(self, name: str = "default", options: PoolOptions | None = None, **stated: Any) -> None:
        super().__init__(name, options, **stated)
        self._threads: Threads | None = None

    def _thread_count(self) -> int:
        return self.options.workers

    def _open_threads(self) -> Threads:
        threads = self._threads
        if threads is None or threads.failed or threads.inherited:
            with self._lock:
                if self._closing is not None and self._threads is None:
                    raise closed_error(self.name)
                if self._threads is threads:
                    self._threads = Threads(self.name, self.options, self._thread_count())
                threads = self._threads
        assert threads is not None
        return threads

    async def _close(self, wait: bool) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.aclose(wait)


class ThreadExecutor(ThreadedPool):
    """Runs each call on one of ``max_workers`` threads; an async function runs in an asyncio loop there.

    All context variables travel. A sync function can't be interrupted: cancelling, or the
    deadline, ends the wait at once and makes ``current_call().cancelled`` true, but the
    thread stays taken until the function returns. The interpreter's exit waits for it too.
    The initializer runs once in each thread.
    """

    kind = "thread"

    async def _run(self, call: Call) -> Any:
        return await self._open_threads().run(call)

    async def _source(self, call: Call) -> StreamSource:
        return ThreadSource(self._open_threads(), call)

    async def _open(self) -> None:
        self._open_threads()
