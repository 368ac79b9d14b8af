"""The conformance suite on the kinds of this process, under asyncio and trio."""

from __future__ import annotations

import pytest

from genro_nats import AsyncExecutor, InlineExecutor, ThreadExecutor
from genro_nats.testing import MemoryExecutor
from genro_nats.testing.conformance import Can, ExecutorConformance, Factory

_SHARED = {
    Can.COPY: "calls share this process's memory",
    Can.IMPORT: "the function itself is called",
    Can.CARRY: "every context variable is there anyway",
}
_INLINE = {
    **_SHARED,
    Can.RUN_BESIDE: "calls run in the thread that awaits them",
    Can.END_SYNC: "nothing can interrupt a sync function in the event loop's own thread",
    Can.TELL_SYNC: "the caller can't cancel while the function runs in its thread",
}
_MEMORY = {
    Can.IMPORT: "functions are looked up in this process",
    Can.SHARE_CONTEXT: "only what is carried travels, as to a worker",
    Can.RUN_BESIDE: "calls run in the task that runs them",
    Can.END_SYNC: "nothing can interrupt a sync function in the event loop's own thread",
    Can.TELL_SYNC: "the caller can't cancel while the function runs in its thread",
}


class TestInline(ExecutorConformance):
    lacks = _INLINE

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: InlineExecutor("conform", **options)


class TestThread(ExecutorConformance):
    lacks = _SHARED
    initialised_per = "thread"

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: ThreadExecutor("conform", **{"max_workers": 4, **options})


class TestAsync(ExecutorConformance):
    lacks = _SHARED
    initialised_per = "thread"

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: AsyncExecutor("conform", **options)


class TestMemory(ExecutorConformance):
    lacks = _MEMORY

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: MemoryExecutor("conform", hold=False, **options)
