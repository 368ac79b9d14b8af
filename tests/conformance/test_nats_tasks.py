"""The conformance suite of tasks on kind nats: a real server, and workers that are processes of their own."""

from __future__ import annotations

from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.testing import WorkerFactory
from genro_nats.testing.conformance import Factory, TaskConformance

_KINDS: dict[str, dict[str, Any]] = {
    "sync": {"max_workers": 2, "spares": 1, "cancel_grace": 0.3},
    "threads": {"max_workers": 2, "threads": 2, "spares": 1, "cancel_grace": 0.3},
    "async": {"kind": "async-process", "max_workers": 2, "spares": 1, "cancel_grace": 0.3},
}
_SINGLE: dict[str, dict[str, Any]] = {
    "sync": {"max_workers": 1},
    "threads": {"max_workers": 1, "threads": 1},
    "async": {"max_workers": 1, "concurrency": 1},
}


@pytest.fixture(scope="module")
def subjects(nats_session_worker: WorkerFactory, request: pytest.FixtureRequest) -> dict[bool, str]:
    """The subject of a worker of several places, and of one of a single place."""
    kind: str = request.param
    nats_session_worker(f"tasks.{kind}", **_KINDS[kind])
    nats_session_worker(f"single.{kind}", **{**_KINDS[kind], **_SINGLE[kind]})
    return {False: f"tasks.{kind}", True: f"single.{kind}"}


class _Nats:
    expires_beside = False

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def make_executor(self, subjects: dict[bool, str], nats_session_worker: WorkerFactory) -> Factory:
        def make(**options: Any) -> Any:
            subject = subjects[options.pop("max_workers", 2) == 1]
            return NatsExecutor("conform", **{**nats_session_worker.shared, "subject": subject, **options})

        return make


@pytest.mark.parametrize("subjects", ["sync"], indirect=True)
class TestNatsTasks(_Nats, TaskConformance):
    pass


@pytest.mark.parametrize("subjects", ["threads"], indirect=True)
class TestNatsTasksThreadedChildren(_Nats, TaskConformance):
    pass


@pytest.mark.parametrize("subjects", ["async"], indirect=True)
class TestNatsTasksAsyncChildren(_Nats, TaskConformance):
    pass
