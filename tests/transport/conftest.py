"""What transport tests share: servers, certificates, credentials, and a call that shows a way works."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor, PoolOptions
from genro_nats.server import EmbeddedServer
from genro_nats.testing import WorkerProcess
from genro_nats.transport.jetstream import JetStream
from tests.transport.brokers import Brokers
from tests.transport.cluster import Cluster
from tests.transport.identities import Authority, Tenancy, tenancy
from tests.transport.streaming import connected


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    """Starts servers: ``brokers(configuration)``; they end with the test."""
    started = Brokers(tmp_path / "servers")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ca")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signed nothing."""
    return Authority(tmp_path_factory.mktemp("stranger"), "other")


@pytest.fixture(scope="session")
def tls(authority: Authority) -> str:
    """The ``tls`` block of a server whose certificate that authority issued."""
    issued = authority.issue("server")
    return f'tls {{ cert_file: "{issued.cert}", key_file: "{issued.key}" }}'


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Tenancy:
    return tenancy(tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for all tests that leave it alone; streams have names of their own."""
    with EmbeddedServer(directory=tmp_path_factory.mktemp("nats") / "server") as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server to be killed, stopped and restarted."""
    with EmbeddedServer(directory=tmp_path / "server") as server:
        yield server


@pytest.fixture
async def js(shared: EmbeddedServer) -> AsyncIterator[JetStream]:
    async with connected(shared) as js:
        yield js


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three servers of a cluster; they end with the test."""
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        for name in cluster.processes:
            cluster.kill(name)


async def call_through(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], secrets: tuple[str, ...] = ()
) -> None:
    """A call from an executor to a worker, both with these options; ``secrets`` show nowhere."""
    caplog.set_level(logging.DEBUG)
    given = {"max_workers": 1, "spares": 0, **options}
    with WorkerProcess({**given, "subject": "tasks.way"}) as worker:
        async with NatsExecutor("way", subject="tasks.way", **options) as pool:
            assert await pool.submit(pow, 2, 10) == 1024
            shown = (
                f"{pool!r} {pool.metrics} {pool.options!r} {PoolOptions.build('nats', options, name='x')!r}"
            )
        shown += worker.stderr() + caplog.text + "".join(map(repr, caplog.records))
    assert [secret for secret in secrets if secret in shown] == []
