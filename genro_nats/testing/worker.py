"""Real workers for tests: each a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

from genro_nats.errors import ExecutorError

__all__ = ["WorkerFactory", "WorkerProcess"]

START_LIMIT = 30.0  # seconds
_SHOWN = 1 << 20  # bytes of a log that are shown at most


class WorkerProcess:
    """A worker in a process of its own, with the import path of this one; ready once it is made.

    ``options``: pool options by name, what leads to the server among them. They travel
    as JSON: an initializer is given by name. ``kind``: of its children.

    Raises:
        ExecutorError: it ended, or was not ready in time; with what it wrote to stderr.
    """

    def __init__(
        self, options: dict[str, Any], *, kind: str = "process", drain_timeout: float = 10.0
    ) -> None:
        self.options = options
        self._log = tempfile.TemporaryFile(prefix="genro-nats-worker-")  # noqa: SIM115 - lives as long as this
        self._rest = b""  # the log, once its file is closed
        self._shown = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "genro_nats.testing.worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        order = {"options": options, "kind": kind, "drain_timeout": drain_timeout}
        try:
            self._begin(json.dumps(order).encode() + b"\n")
        except BaseException:
            self.kill()
            raise

    def _begin(self, order: bytes) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order)
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], START_LIMIT)
        words = self._process.stdout.readline().split() if readable else []
        if words[:1] != [b"ready"]:
            raise ExecutorError(f"The test worker did not become ready:\n{self.stderr()}")
        self.id = words[1].decode()

    @property
    def pid(self) -> int:
        """Process id of the worker's parent; its children have others."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Has it not ended?"""
        return self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM: drain and leave; a second one, leave at once."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 20.0) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = 20.0) -> int:
        """Drain it and wait for its end; its exit code. What still runs then is killed."""
        if self.running:
            self.terminate()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()
        finally:
            self._close()

    def kill(self) -> int:
        """SIGKILL, and see it end."""
        self._process.kill()
        try:
            return self._process.wait(10)
        finally:
            self._close()

    def stderr(self, *, new: bool = False) -> str:
        """What it logged; with ``new`` only since it was last shown so."""
        start = self._shown if new else 0
        data = self._rest if self._log.closed else os.pread(self._log.fileno(), _SHOWN, 0)
        self._shown = len(data)
        return data[start:].decode(errors="replace")

    def _close(self) -> None:
        if not self._log.closed:
            self._rest = os.pread(self._log.fileno(), _SHOWN, 0)
            self._log.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class WorkerFactory:
    """Starts workers that serve a server, and stops them all. Call it: ``factory("tasks.heavy")``.

    ``shared``: the options of every worker, such as url and prefix. ``live``: where
    the workers that run are listed.
    """

    def __init__(self, shared: dict[str, Any], live: list[WorkerProcess] | None = None) -> None:
        self.shared = shared
        self._live = [] if live is None else live
        self._started: list[WorkerProcess] = []

    def __call__(self, subject: str, *, kind: str = "process", **options: Any) -> WorkerProcess:
        """A worker of that subject, ready. Raises as ``WorkerProcess``."""
        worker = WorkerProcess({**self.shared, "subject": subject, **options}, kind=kind)
        self._started.append(worker)
        self._live.append(worker)
        return worker

    def stop(self) -> None:
        """Stop all of them, the last one first."""
        while self._started:
            worker = self._started.pop()
            worker.stop()
            self._live.remove(worker)
