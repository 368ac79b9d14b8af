"""What the demonstration stands on: a directory, an embedded server, a worker; all gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from genro_nats.config import ConfigSource
from genro_nats.errors import ExecutorError
from genro_nats.executor.registry import ExecutorRegistry
from genro_nats.server import EmbeddedServer

__all__ = ["SUBJECT", "Stage", "stage"]

SUBJECT: Final = "tasks.demo"
_HOME: Final = "GENRO_NATS_HOME"
_READY: Final = 30.0  # seconds for the worker to start
_LEAVE: Final = 5.0  # seconds for it to drain
_LOCAL: Final = '[executors.demo]\nkind = "process"\n'
_REMOTE: Final = f'[executors.demo]\nkind = "nats"\nsubject = "{SUBJECT}"\nurl = "embedded"\n'


@dataclass(frozen=True, slots=True)
class Stage:
    """The directory with the two configurations, the server, and the worker."""

    directory: Path
    server: EmbeddedServer
    worker: subprocess.Popen[bytes]

    def registry(self, where: str) -> ExecutorRegistry:
        """A registry as configured by ``local.toml`` or ``remote.toml``."""
        return ExecutorRegistry(ConfigSource(self.directory / f"{where}.toml", environ={}))


@contextmanager
def stage(processes: int) -> Iterator[Stage]:
    """Set everything up; take everything down, also after Ctrl-C.

    Raises:
        ConfigurationError: there is no nats-server.
        ExecutorError: the worker did not get ready.
    """
    with ExitStack() as stack:
        own = TemporaryDirectory(prefix="genro-nats-demo-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(own))
        (directory / "local.toml").write_text(_LOCAL, "utf-8")
        (directory / "remote.toml").write_text(_REMOTE, "utf-8")
        stack.enter_context(_home(directory / "server"))
        server = stack.enter_context(EmbeddedServer(reuse=False))
        worker = stack.enter_context(_worker(directory, processes))
        yield Stage(directory, server, worker)


@contextmanager
def _home(directory: Path) -> Iterator[None]:
    """Until the end, ``url="embedded"`` means the server of this directory."""
    before = os.environ.get(_HOME)
    os.environ[_HOME] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_HOME]
        else:
            os.environ[_HOME] = before


@contextmanager
def _worker(directory: Path, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "genro_nats.cli.main", "worker", "--url", "embedded"]
    command += ["--subject", SUBJECT, "--processes", str(processes), "--import", "genro_nats.cli.demo_job"]
    log = directory / "worker.log"
    # In a session of its own, so that a terminal's Ctrl-C reaches us alone; its standard
    # input ends with us, however we end.
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(worker, log)
        yield worker
    finally:
        _end(worker)


def _wait_until_ready(worker: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY
    while b"worker.ready" not in log.read_bytes():
        if worker.poll() is not None or time.monotonic() > deadline:
            raise ExecutorError(f"The worker did not get ready. Its log: {log.read_text('utf-8', 'replace')}")
        time.sleep(0.02)


def _end(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin is not None
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(_LEAVE)
    except BaseException:
        # Too slow, or a second Ctrl-C: its children end with it.
        worker.kill()
        worker.wait()
        raise
    finally:
        worker.stdin.close()
