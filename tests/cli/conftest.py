"""Real processes of the command, and a server that they share."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.server import EmbeddedServer

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "genro_nats.cli.main"]


def until(condition: Callable[[], object], limit: float = 30.0) -> None:
    """Poll until ``condition`` holds. Fails after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "not within the limit"
        time.sleep(0.01)


def environment(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GENRO_", "NATS_"))}
    return {**own, "PYTHONPATH": str(ROOT), **more}


def finished(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env=environment(**more),
    )


class Running:
    """The command in the background, its log in a file."""

    def __init__(self, log: Path, arguments: tuple[str, ...], **more: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                stdout=subprocess.PIPE,
                stderr=output,
                stdin=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=environment(**more),
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def logged(self, text: str, times: int = 1) -> None:
        """Wait until the log has ``text``."""
        until(lambda: self.log.count(text) >= times or self.process.poll() is not None)
        assert self.log.count(text) >= times, self.log

    def ended(self) -> int:
        return self.process.wait(30)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(directory=tmp_path_factory.mktemp("server") / "home") as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start commands; they end with the test."""
    started: list[Running] = []

    def begin(*arguments: str, **more: str) -> Running:
        started.append(Running(tmp_path / f"{len(started)}.log", arguments, **more))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.process.communicate(timeout=10)


@pytest.fixture
def worker(start: Callable[..., Running], server: EmbeddedServer) -> Callable[..., Running]:
    """Start workers that find the server."""

    def begin(*arguments: str) -> Running:
        return start("worker", *arguments, GENRO_NATS_HOME=str(server.directory))

    return begin


@pytest.fixture
def call(server: EmbeddedServer) -> Callable[..., Any]:
    """Call a function over NATS, once."""

    def run(subject: str, function: Callable[..., Any], *arguments: object) -> Any:
        return asyncio.run(asyncio.wait_for(_call(server, subject, function, arguments), 40))

    return run


def pool(server: EmbeddedServer, subject: str) -> NatsExecutor:
    return NatsExecutor("t", subject=subject, url=server.url, user=server.user, password=server.password)


async def _call(
    server: EmbeddedServer, subject: str, function: Callable[..., Any], arguments: tuple[object, ...]
) -> Any:
    async with pool(server, subject) as remote:
        return await remote.submit(function, *arguments)


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
