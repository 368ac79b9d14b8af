"""The conformance suite on the kinds that run calls in children of this process."""

from __future__ import annotations

import pytest

from genro_nats import AsyncProcessExecutor, ExecutorRegistry, LocalExecutor, ProcessExecutor
from genro_nats.testing.conformance import Can, ExecutorConformance, Factory, QuickConformance

_APART = {Can.SHARE_CONTEXT: "only what is carried travels to another process"}
_KILLED = {**_APART, Can.TELL_SYNC: "a single-threaded child is killed instead"}


class _OnAsyncio:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


class TestProcess(_OnAsyncio, ExecutorConformance):
    lacks = _KILLED

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: ProcessExecutor("conform", **{"max_workers": 2, "spares": 0, **options})


class TestThreadedChildren(_OnAsyncio, ExecutorConformance):
    lacks = _APART

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: ProcessExecutor(
            "conform", **{"max_workers": 2, "threads": 2, "spares": 0, "cancel_grace": 0.2, **options}
        )


class TestAsyncProcess(_OnAsyncio, ExecutorConformance):
    lacks = _APART

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: AsyncProcessExecutor(
            "conform", **{"max_workers": 2, "spares": 0, "cancel_grace": 0.2, **options}
        )


class TestLocalAlias(_OnAsyncio, QuickConformance):
    lacks = _APART

    @pytest.fixture(params=["class", "kind"])
    def make_executor(self, request: pytest.FixtureRequest) -> Factory:
        if request.param == "class":
            return lambda **options: LocalExecutor("conform", **{"max_workers": 1, **options})
        return lambda **options: ExecutorRegistry().executor(
            "local", name="conform", max_workers=1, **options
        )


class TestFromTrio(QuickConformance):
    lacks = _APART

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"

    @pytest.fixture
    def make_executor(self) -> Factory:
        return lambda **options: ProcessExecutor("conform", **{"max_workers": 2, "spares": 0, **options})
