"""The configuration file of an embedded server: loopback, one user, JetStream."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ServerConfig", "quote"]

_MIB = 1024 * 1024


@dataclass(frozen=True)
class ServerConfig:
    """All that one start of nats-server is told. ``port`` -1 means a free one; sizes are bytes."""

    name: str
    user: str
    password: str = field(repr=False)
    port: int
    max_payload: int
    directory: Path
    store_dir: Path | None
    monitoring: bool

    @property
    def log(self) -> Path:
        return self.directory / "nats-server.log"

    def render(self) -> str:
        lines = [
            f"server_name: {quote(self.name)}",
            'host: "127.0.0.1"',
            f"port: {self.port}",
            f"max_payload: {self.max_payload}",
            # Room for a few of the largest messages before a slow reader is cut off.
            f"max_pending: {max(4 * self.max_payload, 64 * _MIB)}",
            f"ports_file_dir: {quote(str(self.directory))}",
            f"logfile: {quote(str(self.log))}",
            f"logfile_size_limit: {16 * _MIB}",
            "logfile_max_num: 2",
            f"authorization {{ user: {quote(self.user)}, password: {quote(self.password)} }}",
        ]
        if self.store_dir is not None:
            lines.append(f"jetstream {{ store_dir: {quote(str(self.store_dir))} }}")
        if self.monitoring:
            lines.append('http: "127.0.0.1:-1"')
        return "\n".join(lines) + "\n"


def quote(value: str) -> str:
    """``value`` as a quoted string of the server's configuration language, whatever is in it.

    A bare value would be read as a number or, with a leading ``$``, as a variable.
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in escaped) + '"'


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
