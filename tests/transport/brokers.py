"""Real nats-servers with configurations of their own, on loopback and free ports."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from genro_nats.server import find_server

_LIMIT = 10.0  # seconds


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One server; ``web`` is the port of its websockets, which ``$WEB`` in the configuration means."""

    def __init__(self, directory: Path, configuration: str = "", port: int = 0) -> None:
        self.port, self.web = port or free_port(), free_port()
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"{self.port}.conf"
        text = configuration.replace("$WEB", str(self.web))
        file.write_text(f"host: 127.0.0.1\nport: {self.port}\n{text}\n")
        self._log = (directory / f"{self.port}.log").open("wb")
        self._process = subprocess.Popen([find_server(), "-c", file], stdout=self._log, stderr=self._log)
        try:
            self._await(self.web if "$WEB" in configuration else self.port)
        except BaseException:
            self.kill()
            raise

    def _await(self, port: int) -> None:
        begin = time.monotonic()
        while True:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() - begin < _LIMIT, "the server does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.01)

    def url(self, scheme: str = "nats", login: str = "") -> str:
        """Its address; that of its websockets for ws and wss."""
        return f"{scheme}://{login}127.0.0.1:{self.web if scheme.startswith('ws') else self.port}"

    def end(self) -> None:
        """SIGTERM: it closes its connections in good order."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, and see it end. Can be repeated."""
        self._process.kill()
        self._process.wait(10)
        self._log.close()


class Brokers:
    """Starts servers and ends them all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Broker] = []

    def __call__(self, configuration: str = "", port: int = 0) -> Broker:
        """One with this configuration, on this port or a free one."""
        broker = Broker(self._directory, configuration, port)
        self._started.append(broker)
        return broker

    def stop(self) -> None:
        while self._started:
            self._started.pop().kill()
