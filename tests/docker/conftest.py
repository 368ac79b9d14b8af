"""One image for all of these tests; each fleet ends with its test, also when that fails."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.engine import REQUIRED, ROOT, compose_command, missing, run
from tests.docker.fleet import Fleet

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them are marked, and may take longer than others."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    """Skip with the reason, or fail where Docker is required."""
    why = missing()
    if why and os.environ.get(REQUIRED, "") not in ("", "0"):
        pytest.fail(f"{REQUIRED} is set, but {why}")
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def build(_engine: None) -> Iterator[Callable[..., str]]:
    """``build("v1")`` builds the image with that tag, which ends with the session."""
    own = f"test-{os.getpid()}-{os.urandom(3).hex()}"
    tags: list[str] = []

    def begin(release: str) -> str:
        tag = f"{own}-{release}"
        tags.append(tag)
        run(*compose_command(), "-p", own, "build", "worker", limit=280, WORKER_TAG=tag)
        return tag

    yield begin
    for tag in tags:
        subprocess.run(["docker", "rmi", f"genro-nats-worker:{tag}"], capture_output=True, check=False)


@pytest.fixture(scope="session")
def tag(build: Callable[..., str]) -> str:
    """The image's tag."""
    return build("v1")


@pytest.fixture
def fleet(tag: str) -> Iterator[Fleet]:
    """A fleet as compose.yaml describes it."""
    with Fleet(tag) as fleet:
        yield fleet


def mounted(directory: Path, *arguments: str) -> Path:
    """A compose file that gives workers the code in ``directory``, as the comment in compose.yaml says."""
    text = (ROOT / "compose.yaml").read_text()
    (example,) = re.findall(r"^    # (volumes:\n    #   - .*\n)    # command: ", text, re.M)
    volumes = example.replace("    # ", "    ").replace("${CODE:-./workers}", str(directory))
    file = directory / "compose.code.yaml"
    command = ", ".join(f'"{argument}"' for argument in arguments)
    file.write_text(f"services:\n  worker:\n    {volumes}    command: [{command}]\n")
    directory.chmod(0o755)
    return file
