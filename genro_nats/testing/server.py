"""The nats-server that a test session uses: one of its own, or one that runs already."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from genro_nats.server import EmbeddedServer

__all__ = ["NatsServer"]


class NatsServer:
    """Where it is and how to get in: ``NatsExecutor("mine", **server.options, subject=...)``.

    ``url``: of a server that runs; None starts one in a temporary directory, with
    JetStream, on a free port, which ends with this object.
    ``embedded``: that server, to be killed and restarted by tests; else None.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self.embedded: EmbeddedServer | None = None

    def start(self) -> Self:
        """Start it, unless it was given. Raises as ``EmbeddedServer.start``."""
        if self._url is None and self.embedded is None:
            self._directory = tempfile.TemporaryDirectory(prefix="genro-nats-test-")
            self.embedded = EmbeddedServer(directory=Path(self._directory.name) / "server").start()
        return self

    def stop(self) -> None:
        """End it, and remove its directory."""
        if self.embedded is not None:
            self.embedded.stop()
            self.embedded = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def url(self) -> str:
        """Its address; with a password only if the one given had it."""
        if self._url is not None:
            return self._url
        assert self.embedded is not None, "the server is not started"
        return self.embedded.url

    @property
    def options(self) -> dict[str, Any]:
        """Pool options that lead to it: url, user, password."""
        if self.embedded is None:
            return {"url": self.url}
        return {"url": self.url, "user": self.embedded.user, "password": self.embedded.password}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
