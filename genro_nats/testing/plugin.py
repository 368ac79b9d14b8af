"""The pytest plugin: fixtures for tests of code that calls pools.

========================  ===========================================================
``inline_executors``      a registry whose pools, of whatever kind, run calls inline
``memory_executors``      one whose pools hold every call until the test runs it
``nats_server``           a real nats-server, one per session
``nats_prefix``           a subject prefix that no other test uses
``nats_options``          pool options that lead to that server and prefix
``nats_worker``           starts real workers there, and stops them with the test
``nats_session_worker``   the same for workers that many tests share
========================  ===========================================================

``--nats=embedded`` (default) starts a server in a temporary directory;
``--nats=docker`` one in a container (``pip install "genro-nats[testcontainers]"``);
``--nats=URL`` uses one that runs. What a fixture needs is imported with it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from genro_nats.executor.registry import ExecutorRegistry
    from genro_nats.testing.server import NatsServer
    from genro_nats.testing.worker import WorkerFactory, WorkerProcess

_LIVE: pytest.StashKey[list[WorkerProcess]] = pytest.StashKey()

pytest.register_assert_rewrite("genro_nats.testing.suite", "genro_nats.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--nats``."""
    parser.getgroup("genro-nats").addoption(
        "--nats",
        default="embedded",
        metavar="embedded|docker|URL",
        help="nats-server for tests: 'embedded' starts one, 'docker' one in a container, "
        "a URL uses one that runs",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Where running workers are listed."""
    config.stash[_LIVE] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what workers logged during a test that failed."""
    report = yield
    for worker in item.config.stash[_LIVE]:
        text = worker.stderr(new=True)
        if report.failed and text:
            report.sections.append((f"Log of worker {worker.options['subject']} (pid {worker.pid})", text))
    return report


@pytest.fixture
def inline_executors() -> ExecutorRegistry:
    """A registry whose pools run every call inline."""
    from genro_nats.testing.registries import inline_registry

    return inline_registry()


@pytest.fixture
def memory_executors() -> ExecutorRegistry:
    """A registry whose pools hold every call until the test runs it: see ``MemoryExecutor``."""
    from genro_nats.testing.registries import memory_registry

    return memory_registry()


@pytest.fixture(scope="session")
def nats_server(pytestconfig: pytest.Config) -> Iterator[NatsServer]:
    """A real nats-server for the whole session."""
    from genro_nats.testing.server import NatsServer

    chosen = pytestconfig.getoption("--nats")
    if chosen == "docker":
        from genro_nats.testing.docker import docker_server

        with docker_server() as url:
            yield NatsServer(url)
        return
    with NatsServer(None if chosen == "embedded" else chosen) as server:
        yield server


@pytest.fixture
def nats_prefix() -> str:
    """A subject prefix of this test's own."""
    return f"test-{os.urandom(6).hex()}"


@pytest.fixture
def nats_options(nats_server: NatsServer, nats_prefix: str) -> dict[str, Any]:
    """``NatsExecutor("mine", **nats_options)``: url, credentials, prefix."""
    return {**nats_server.options, "prefix": nats_prefix}


@pytest.fixture
def nats_worker(nats_options: dict[str, Any], pytestconfig: pytest.Config) -> Iterator[WorkerFactory]:
    """``nats_worker("tasks.heavy", max_workers=2)`` starts a worker; it ends with the test."""
    from genro_nats.testing.worker import WorkerFactory

    factory = WorkerFactory(nats_options, pytestconfig.stash[_LIVE])
    yield factory
    factory.stop()


@pytest.fixture(scope="session")
def nats_session_worker(nats_server: NatsServer, pytestconfig: pytest.Config) -> Iterator[WorkerFactory]:
    """As ``nats_worker``, for workers that many tests share; ``shared`` has the pool options."""
    from genro_nats.testing.worker import WorkerFactory

    prefix = f"test-{os.urandom(6).hex()}"
    factory = WorkerFactory({**nats_server.options, "prefix": prefix}, pytestconfig.stash[_LIVE])
    yield factory
    factory.stop()
