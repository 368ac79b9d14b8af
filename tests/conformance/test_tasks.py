"""The conformance suite of tasks, on every kind of pool."""

from __future__ import annotations

from typing import Any

import pytest

from genro_nats import ExecutorRegistry
from genro_nats.testing.conformance import Can, Factory, TaskConformance

_SHARED = {
    Can.COPY: "calls share this process's memory",
    Can.LOSE_CHILDREN: "calls run in this process",
}
_INLINE = {
    **_SHARED,
    Can.QUEUE_TASKS: "a task that is due runs inside enqueue",
    Can.END_SYNC: "nothing can interrupt a sync function in an event loop's own thread",
}
_CHILDREN: dict[str, Any] = {"max_workers": 2, "spares": 1, "cancel_grace": 0.2}


class _Local:
    kind: str
    options: dict[str, Any] = {}  # noqa: RUF012 - read only

    @pytest.fixture
    def make_executor(self) -> Factory:
        def make(**options: Any) -> Any:
            return ExecutorRegistry().executor(self.kind, name="conform", **{**self.options, **options})

        return make


class _OnAsyncio(_Local):
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


class TestInline(_Local, TaskConformance):
    kind = "inline"
    lacks = _INLINE
    beside = {"delay": 0.001}  # noqa: RUF012 - read only


class TestThread(_Local, TaskConformance):
    kind = "thread"
    options = {"max_workers": 2, "cancel_grace": 0.2}  # noqa: RUF012
    lacks = _SHARED


class TestAsync(_Local, TaskConformance):
    kind = "async"
    options = {"cancel_grace": 0.2}  # noqa: RUF012
    lacks = _SHARED


class TestProcess(_OnAsyncio, TaskConformance):
    kind = "process"
    options = _CHILDREN


class TestThreadedChildren(_OnAsyncio, TaskConformance):
    kind = "process"
    options = {**_CHILDREN, "threads": 2}  # noqa: RUF012
    single = {"max_workers": 1, "threads": 1}  # noqa: RUF012


class TestAsyncProcess(_OnAsyncio, TaskConformance):
    kind = "async-process"
    options = _CHILDREN
