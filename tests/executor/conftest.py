"""Backends, and an engine of this process: what homed executors drive, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from genro_nats.errors import ExecutorClosedError
from genro_nats.executor.engine import StreamSource
from genro_nats.executor.homed import HomedExecutor
from genro_nats.executor.local_run import InlineSource, run_inline
from genro_nats.message import Call, running_call


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TaskEngine:
    """Runs each call as a task of its loop, and notes what it is told."""

    def __init__(self, log: list[str], fail: Callable[[], None] = lambda: None) -> None:
        self.log = log
        self._fail = fail
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self.log.append("start")
        await asyncio.sleep(0)
        self._fail()
        self.loop = asyncio.get_running_loop()

    async def aclose(self, wait: bool = True) -> None:
        self.log.append(f"aclose {wait}")
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        self.log.append("abandon")

    async def run(self, call: Call) -> Any:
        assert asyncio.get_running_loop() is self.loop
        task = self.loop.create_task(self._run(call))
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if task not in self._tasks:
                raise ExecutorClosedError("closed") from None
            task.cancel()
            self.log.append("cancelled")
            raise
        finally:
            self._tasks.discard(task)

    async def _run(self, call: Call) -> Any:
        running_call.set(None)
        return await run_inline(call)

    def stream(self, call: Call) -> StreamSource:
        return _Logged(InlineSource(call), self.log)

    def facts(self) -> dict[str, Any]:
        return {"busy": len(self._tasks)}


class _Logged:
    def __init__(self, source: InlineSource, log: list[str]) -> None:
        self._source = source
        self._log = log

    async def receive(self) -> Any:
        return await self._source.receive()

    async def aclose(self) -> None:
        self._log.append("stream closed")
        await self._source.aclose()

    def abort(self) -> None:
        self._log.append("stream aborted")
        self._source.abort()


class TaskExecutor(HomedExecutor):
    """A homed executor over TaskEngine; ``log`` has what its engines were told."""

    kind = "process"  # for its options

    def __init__(self, *args: Any, fail: Callable[[], None] = lambda: None, **stated: Any) -> None:
        super().__init__(*args, **stated)
        self.log: list[str] = []
        self._fail = fail

    def _make_engine(self) -> TaskEngine:
        return TaskEngine(self.log, self._fail)


@pytest.fixture
def homed() -> type[TaskExecutor]:
    return TaskExecutor
