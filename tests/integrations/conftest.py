"""A real nats-server, a real worker, and sites in processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from genro_nats.server import EmbeddedServer

ROOT = Path(__file__).parents[2]
LIMIT = 20.0  # seconds for anything to happen


def until(condition: Callable[[], Any], limit: float = LIMIT) -> Any:
    """Poll until ``condition`` gives something true, and return it. Fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, "not within the limit"
        time.sleep(0.01)
    return found


def python(*arguments: str, log: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Start another Python; what it says goes to ``log``."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        )


class RunningSite:
    """A site that runs in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.url = ""

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> RunningSite:
        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.said
            return re.search(r"running on (http://127\.0\.0\.1:\d+)", self.said)

        self.url = until(found)[1]
        return self

    def get(self, path: str, /, **query: Any) -> httpx.Response:
        return httpx.get(f"{self.url}/{path}", params=query, timeout=LIMIT)

    def pending(self, pool: str) -> int:
        return int(self.get("figures").json()[pool]["pending"])

    def ended(self) -> int:
        """Its exit code."""
        return self.process.wait(LIMIT)


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a nats-server, with credentials."""
    with EmbeddedServer(directory=tmp_path_factory.mktemp("nats"), jetstream=False) as server:
        yield f"nats://{server.user}:{server.password}@127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def worker(nats: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The subject of a running worker."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    process = python("-m", "tests.integrations.working", "tasks.heavy", log=log, NATS_URL=nats)
    try:
        until(lambda: "worker.ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield "tasks.heavy"
    finally:
        process.terminate()
        try:
            process.wait(LIMIT)
        finally:
            process.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., RunningSite]]:
    """Starts sites: ``site(pools, how="uvicorn", **environ)``; they end with the test."""
    started: list[RunningSite] = []

    def start(pools: dict[str, Any], how: str = "uvicorn", **environ: str) -> RunningSite:
        uvicorn = ("-m", "uvicorn", "tests.integrations.site:server", "--port", "0")
        arguments = uvicorn if how == "uvicorn" else ("-m", "tests.integrations.site")
        log = tmp_path / f"site{len(started)}.log"
        process = python(*arguments, log=log, SITE_POOLS=json.dumps(pools), **environ)
        started.append(RunningSite(process, log))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait(LIMIT)
