"""The Docker engine and its compose, as these tests call them: bounded, and never left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIRED = "GENRO_REQUIRE_DOCKER"


def run(*command: str, limit: float = 120, **variables: str) -> str:
    """What a command prints. Fails with all it said, and after ``limit`` seconds."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@cache
def missing() -> str:
    """Why these tests can't run here; "" if they can."""
    if shutil.which("docker") is None:
        return "there is no Docker here"
    info = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60, check=False)
    if info.returncode:
        return f"no Docker engine answers: {info.stderr.strip()[-200:]}"
    return "" if compose_command() else "there is no docker compose here"


@cache
def compose_command() -> tuple[str, ...]:
    """The plugin where it exists, else the program."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60, check=False)
    if plugin.returncode == 0:
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()


def until(condition: Callable[[], object], limit: float = 30.0, pause: float = 0.1) -> None:
    """Poll until ``condition`` holds. Fails after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "not within the limit"
        time.sleep(pause)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()
