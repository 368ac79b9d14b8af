"""Helpers for tests against a real nats-server: clients, other processes, bounded waits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest

from genro_nats.server import EmbeddedServer

ROOT = Path(__file__).parents[2]


def client(server: EmbeddedServer, use: Callable[[Any], Any] | None = None) -> Any:
    """Connect with the server's credentials, and return what ``use(client)`` gives."""

    async def run() -> Any:
        connection = await nats.connect(
            server.url, user=server.user, password=server.password, allow_reconnect=False, error_cb=quiet
        )
        try:
            return await use(connection) if use else connection.is_connected
        finally:
            await connection.close()

    return asyncio.run(asyncio.wait_for(run(), 10))


async def quiet(error: Exception) -> None:
    pass


def until(condition: Callable[[], bool], limit: float) -> float:
    """Poll until ``condition`` holds; seconds it took. Fails after ``limit`` seconds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit, "not within the limit"
        time.sleep(0.005)
    return time.monotonic() - begin


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Other:
    """Another Python process: runs ``code``, says lines, goes on when told."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


@pytest.fixture
def other() -> Iterator[Callable[..., Other]]:
    """Starts other processes, and ends them with the test."""
    started: list[Other] = []

    def start(code: str, *arguments: object) -> Other:
        started.append(Other(code, *map(str, arguments)))
        return started[-1]

    yield start
    for process in started:
        process.end()
