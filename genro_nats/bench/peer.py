"""The other processes of the benchmark: started, configured over their stdin, ended.

A peer gets one line of JSON on its stdin (so that no password is in its arguments),
says one line when it is ready, and ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from genro_nats.errors import ExecutorError

__all__ = ["Peer", "has_uvloop", "import_environment", "run_peer"]

_ENDING: Final = 10.0  # seconds
_ROOT: Final = str(Path(__file__).parents[2])

Serve = Callable[[dict[str, Any], Callable[[str], None], asyncio.Event], Coroutine[Any, Any, None]]


def has_uvloop() -> bool:
    """Is uvloop installed?"""
    return importlib.util.find_spec("uvloop") is not None


def import_environment() -> dict[str, str]:
    """This process's environment, in which a new Python finds the same genro_nats."""
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Peer:
    """One process of this package: ``with Peer("genro_nats.bench.echo", {...}) as peer``."""

    def __init__(self, module: str, config: dict[str, Any], *, timeout: float = 60.0) -> None:
        self._module = module
        self._config = config
        self._timeout = timeout

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=import_environment(),
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._config) + "\n")
        self._process.stdin.flush()
        try:
            self.said = self._line()
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        return self

    def _line(self) -> str:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], self._timeout)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            raise ExecutorError(f"{self._module} was not ready within {self._timeout:g} s.")
        return line.rstrip("\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid


def run_peer(serve: Serve) -> None:
    """The life of a peer: run ``serve(config, say, stopped)`` on the event loop that ``config`` asks for."""
    config: dict[str, Any] = json.loads(sys.stdin.readline())
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if config.get("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_told(serve, config))


async def _until_told(serve: Serve, config: dict[str, Any]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=listen, daemon=True).start()
    await serve(config, _say, stopped)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
