"""The conformance suites in names-only mode: codec="data", and a worker that runs registered functions only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from genro_nats import NatsExecutor
from genro_nats.testing import WorkerFactory
from genro_nats.testing.conformance import Can, ExecutorConformance, Factory
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.task_ends import DeadLetterTests, RetryTests
from genro_nats.testing.suite.task_keeping import ScheduleTests
from genro_nats.testing.suite.tasks import TaskTests

_LACKS = {
    Can.SHARE_CONTEXT: "only what is carried travels to a worker",
    Can.INITIALISE: "the worker's own initializer runs there",
    Can.TELL_SYNC: "a single-threaded child is killed instead",
    Can.SEND_FUNCTIONS: "names-only: the worker runs what it has",
    Can.IMPORT: "names-only: what is not registered is refused, imported or not",
}
_WORKER: dict[str, Any] = {
    "max_workers": 2,
    "spares": 1,
    "cancel_grace": 0.3,
    "only_registered": True,
    "allow": [f"{samples.__name__}:*", "builtins:len"],
}


@pytest.fixture(scope="module")
def shared(nats_session_worker: WorkerFactory) -> dict[str, Any]:
    nats_session_worker("data.calls", **_WORKER)
    nats_session_worker("data.single", **{**_WORKER, "max_workers": 1})
    return {**nats_session_worker.shared, "codec": "data"}


class _Data:
    lacks: ClassVar[Mapping[Can, str]] = _LACKS
    expires_beside = False

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


class TestDataCalls(_Data, ExecutorConformance):
    @pytest.fixture
    def make_executor(self, shared: dict[str, Any]) -> Factory:
        return lambda **options: NatsExecutor("conform", **{**shared, "subject": "data.calls", **options})


@pytest.mark.anyio
class TestDataTasks(_Data, TaskTests, RetryTests, DeadLetterTests, ScheduleTests):
    """Those in which values or errors travel."""

    @pytest.fixture
    def make_executor(self, shared: dict[str, Any]) -> Factory:
        def make(**options: Any) -> Any:
            subject = "data.single" if options.pop("max_workers", 2) == 1 else "data.calls"
            return NatsExecutor("conform", **{**shared, "subject": subject, **options})

        return make
