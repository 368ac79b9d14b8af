"""The conformance suite on kind nats: a real server, and workers that are processes of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.testing import WorkerFactory, WorkerProcess
from genro_nats.testing.conformance import Can, ExecutorConformance, Factory, QuickConformance
from genro_nats.testing.suite import samples

_LACKS = {
    Can.SHARE_CONTEXT: "only what is carried travels to a worker",
    Can.INITIALISE: "the worker's own initializer runs there",
}
_KILLED = {**_LACKS, Can.TELL_SYNC: "a single-threaded child is killed instead"}
_KINDS: dict[str, dict[str, Any]] = {
    "sync": {"max_workers": 2, "spares": 1},
    "threads": {"max_workers": 2, "threads": 2, "spares": 1, "cancel_grace": 0.2},
    "async": {"kind": "async-process", "max_workers": 2, "spares": 1, "cancel_grace": 0.2},
}


@pytest.fixture(scope="module")
def worker(nats_session_worker: WorkerFactory, request: pytest.FixtureRequest) -> WorkerProcess:
    return nats_session_worker(f"conform.{request.param}", **_KINDS[request.param])


@pytest.fixture
def make_executor(worker: WorkerProcess, nats_session_worker: WorkerFactory) -> Factory:
    shared = {**nats_session_worker.shared, "subject": worker.options["subject"]}
    return lambda **options: NatsExecutor("conform", **{**shared, **options})


class _Nats:
    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def make_executor(self, make_executor: Factory) -> Factory:
        return make_executor


@pytest.mark.parametrize("worker", ["sync"], indirect=True)
class TestNats(_Nats, ExecutorConformance):
    lacks = _KILLED


@pytest.mark.parametrize("worker", ["threads"], indirect=True)
class TestNatsThreadedChildren(_Nats, ExecutorConformance):
    lacks = _LACKS


@pytest.mark.parametrize("worker", ["async"], indirect=True)
class TestNatsAsyncChildren(_Nats, ExecutorConformance):
    lacks = _LACKS


@pytest.mark.parametrize("worker", ["sync"], indirect=True)
class TestNatsFromTrio(_Nats, QuickConformance):
    lacks = _LACKS

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"


@pytest.mark.parametrize("worker", ["sync"], indirect=True)
def test_from_a_plain_thread(make_executor: Factory) -> None:
    pool = make_executor()
    assert pool(samples.add).call(1, b=2) == 3
    assert pool(samples.add_async).call(1) == 2
    with pytest.raises(ValueError, match="-1 is negative"):
        pool(samples.negative).call(-1)
    asyncio.run(pool.aclose())
