"""What an embedded server is asked to be, and whether one that runs already is that."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from genro_nats.errors import ConfigurationError
from genro_nats.server.config import ServerConfig
from genro_nats.server.paths import private_directory, shared_store
from genro_nats.server.state import ServerState

__all__ = ["MAX_PAYLOAD", "ServerOptions", "check_joinable"]

MAX_PAYLOAD = 64 * 1024 * 1024


@dataclass(frozen=True)
class ServerOptions:
    """The options of ``EmbeddedServer``, with its meanings."""

    directory: Path | None
    store_dir: Path | None
    port: int | None
    max_payload: int
    reuse: bool
    jetstream: bool
    monitoring: bool

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ConfigurationError(f"port={self.port} is no port: give 1 to 65535, or None for a free one")
        if not 1024 <= self.max_payload < 2**31:
            raise ConfigurationError(f"max_payload={self.max_payload} bytes: give 1024 to {2**31 - 1}")

    def store(self, home: Path) -> Path | None:
        """The private directory for streams of the server in ``home``; None without JetStream."""
        if not self.jetstream:
            return None
        own = shared_store() if self.directory is None else home / "store"
        return private_directory((self.store_dir or own).absolute())

    def config(self, home: Path, store: Path | None, last: ServerState | None) -> ServerConfig:
        """The configuration of a new start: with fresh credentials, or those of the ``last`` one."""
        return ServerConfig(
            name=f"genro-nats-{secrets.token_hex(8)}",
            user=last.user if last else "genro",
            password=last.password if last else secrets.token_urlsafe(32),
            port=last.port if last else self.port or -1,
            max_payload=self.max_payload,
            directory=home,
            store_dir=store,
            monitoring=self.monitoring,
        )


def check_joinable(running: ServerState, wanted: ServerOptions, home: Path, *, restarting: bool) -> None:
    """ConfigurationError if ``running`` may not be joined, or isn't what is ``wanted``."""
    where = f"a nats-server (pid {running.pid}, port {running.port}) already runs in {home}"
    if restarting or not wanted.reuse:
        raise ConfigurationError(f"{where}: join it with reuse=True, or give another directory=")
    unlike = _unlike(running, wanted)
    if unlike:
        raise ConfigurationError(
            f"{where}, but {', '.join(unlike)}: ask for what it has, give another directory=, or end it"
        )


def _unlike(running: ServerState, wanted: ServerOptions) -> list[str]:
    store = wanted.store_dir and str(wanted.store_dir.absolute().parent.resolve() / wanted.store_dir.name)
    checks = (
        (wanted.port not in (None, running.port), f"not at port {wanted.port}"),
        (wanted.max_payload > running.max_payload, f"its max_payload is only {running.max_payload}"),
        (wanted.jetstream and not running.jetstream, "without JetStream"),
        (store and wanted.jetstream and store != running.store_dir, f"its store is {running.store_dir}"),
        (wanted.monitoring and not running.monitoring_url, "without monitoring"),
    )
    return [text for wrong, text in checks if wrong]
