"""A compose fleet of the project's own compose.yaml, in a compose project of its own."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Self

from tests.docker.engine import compose_command, free_ports, run

MARKS = "/tmp/marks"


class Fleet:
    """Broker and workers; ``down`` removes them with their volumes and networks.

    ``files``: compose files over the project's own.
    """

    def __init__(self, tag: str, *files: Path) -> None:
        self.name = f"genro-test-{os.getpid()}-{os.urandom(3).hex()}"
        self.files = list(files)
        broker, self.monitoring = free_ports(2)
        self.url = f"nats://127.0.0.1:{broker}"
        self.variables = {
            "WORKER_TAG": tag,
            "NATS_PORT": str(broker),
            "NATS_MONITORING_PORT": str(self.monitoring),
        }

    def compose(self, *arguments: str, limit: float = 120) -> str:
        """Run compose on this project."""
        files = [f"--file={file}" for file in ("compose.yaml", *self.files)]
        command = (*compose_command(), "--project-name", self.name, *files, *arguments)
        return run(*command, limit=limit, **self.variables)

    def up(self, *services: str, workers: int) -> None:
        """Start, or bring to what the files and variables say now."""
        self.compose("up", "-d", "--no-build", "--scale", f"worker={workers}", *services)

    def down(self) -> None:
        """End it, and leave nothing behind."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def containers(self, service: str, *, all: bool = False) -> list[str]:
        """Their ids; with ``all`` of those that ended too."""
        labels = (f"project={self.name}", f"service={service}")
        filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
        return run("docker", "ps", "-q", *(["-a"] if all else []), *filters).split()

    def state(self, container: str) -> dict[str, Any]:
        """What the engine knows of it: Status, ExitCode, Health."""
        state: dict[str, Any] = json.loads(run("docker", "inspect", "-f", "{{json .State}}", container))
        return state

    def healthy(self, service: str, count: int) -> bool:
        """Do ``count`` containers of it run, all of them healthy?"""
        found = self.containers(service)
        return len(found) == count and all(self.state(c)["Health"]["Status"] == "healthy" for c in found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


def marks(containers: list[str], into: Path) -> Counter[int]:
    """How often each job began, in these containers; they may have ended."""
    begun: Counter[int] = Counter()
    for container in containers:
        target = into / container
        run("docker", "cp", f"{container}:{MARKS}", str(target))
        for file in target.iterdir():
            begun.update(map(int, file.read_text().split()))
    return begun
