"""The conformance suites with narrow users: the pool is a caller, the worker a worker, each bound to its pools.

A subject that one side uses and that its role lacks makes a test fail.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from genro_nats import NatsExecutor, PermissionDeniedError
from genro_nats.testing import WorkerFactory
from genro_nats.testing.conformance import ExecutorConformance, Factory, TaskConformance
from tests.conformance.test_nats import _KILLED
from tests.secured import SecuredServer

_POOLS: dict[str, dict[str, Any]] = {
    "calls": {"max_workers": 2, "spares": 1},
    "tasks.sync": {"max_workers": 2, "spares": 1, "cancel_grace": 0.3},
    "single.sync": {"max_workers": 1, "spares": 1, "cancel_grace": 0.3},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    bound = [word for pool in _POOLS for word in ("--subject", pool)]
    with SecuredServer(tmp_path_factory.mktemp("roles"), *bound) as server:
        factory = WorkerFactory(server.options("worker"))
        try:
            workers = [factory(subject, **options) for subject, options in _POOLS.items()]
            yield server
            for worker in workers:
                # Nobody else is told of what a worker may not do.
                assert "does not allow this user" not in worker.stderr()
        finally:
            factory.stop()


class _AsCaller:
    expires_beside = False

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


class TestCallsAsCaller(_AsCaller, ExecutorConformance):
    lacks = _KILLED

    @pytest.fixture
    def make_executor(self, server: SecuredServer) -> Factory:
        access = {**server.options("caller"), "subject": "calls"}
        return lambda **options: NatsExecutor("conform", **{**access, **options})


# What needs another role: lists and dead letters, and a made-up id that is not this user's.
_REFUSED = (
    "test_runs",
    "test_list_replay_and_drop",
    "test_replaying_what_is_not_there",
    "test_what_ended_well_is_no_dead_letter",
    "test_three_deaths_are_enough",
    "test_unknown_ids",
    "test_listing",
)


def _refusing(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def refused(*args: Any, **fixtures: Any) -> None:
        with pytest.raises(PermissionDeniedError):
            await test(*args, **fixtures)

    return refused


class TestTasksAsCaller(_AsCaller, TaskConformance):
    locals().update({name: _refusing(getattr(TaskConformance, name)) for name in _REFUSED})

    @pytest.fixture
    def make_executor(self, server: SecuredServer) -> Factory:
        def make(**options: Any) -> Any:
            subject = "single.sync" if options.pop("max_workers", 2) == 1 else "tasks.sync"
            return NatsExecutor("conform", **{**server.options("caller"), "subject": subject, **options})

        return make
