"""A real nats-server with the configuration that ``genro-nats auth init`` writes."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genro_nats.cli.main import main
from genro_nats.server import find_server

_LIMIT = 10.0  # seconds


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def auth_init(directory: Path, *arguments: str) -> dict[str, Any]:
    """Run the command; the facts it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["auth", "init", str(directory), *arguments, "--json"])
    assert code == 0, printed.getvalue()
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


class SecuredServer:
    """The server with roles; ``change`` alters the configuration before it starts."""

    def __init__(
        self, directory: Path, *arguments: str, change: Callable[[str], str] = str, prefix: str = "sec"
    ) -> None:
        self.port = free_port()
        self.prefix = prefix
        self.facts = auth_init(directory, "--prefix", prefix, "--port", str(self.port), "--force", *arguments)
        config = Path(self.facts["config"])
        config.write_text(change(config.read_text()))
        self._config = config
        self._begin()

    def _begin(self) -> None:
        self._log = self._config.with_name("server.log").open("ab")
        self._process = subprocess.Popen(
            [find_server(), "-c", self._config], stdout=self._log, stderr=self._log
        )
        try:
            self._await()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Kill it and start it again, on the same port and store."""
        self.stop()
        self._begin()

    def _await(self) -> None:
        begin = time.monotonic()
        while True:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() - begin < _LIMIT, "the server does not listen"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.01)

    def options(self, user: str) -> dict[str, Any]:
        """Pool options that lead there as this user."""
        seed = next(one["seed_file"] for one in self.facts["users"] if one["name"] == user)
        return {"url": self.facts["url"], "prefix": self.prefix, "nkey_seed_file": seed}

    def public(self, user: str) -> str:
        """The public key of a user."""
        found: str = next(one["nkey"] for one in self.facts["users"] if one["name"] == user)
        return found

    def stop(self) -> None:
        """SIGKILL, and see it end."""
        self._process.kill()
        self._process.wait(10)
        self._log.close()

    def __enter__(self) -> SecuredServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
