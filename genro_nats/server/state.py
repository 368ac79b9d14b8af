"""The record of a running server, which other processes of the same user find it by."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genro_nats.errors import TransportError
from genro_nats.server.lock import try_lock
from genro_nats.server.paths import write_private

__all__ = ["ServerState", "forget_state", "probe", "read_info", "read_state", "write_state"]


@dataclass(frozen=True)
class ServerState:
    """What a client needs to use a running server. Kept in a 0600 file, since it holds the password."""

    name: str
    pid: int
    port: int
    user: str
    password: str = field(repr=False)
    version: str
    max_payload: int
    jetstream: bool
    store_dir: str | None
    monitoring_url: str | None


def read_state(path: Path) -> ServerState | None:
    """The record in ``path``; None if there is none, or none that this version can read."""
    try:
        return ServerState(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(path: Path, state: ServerState) -> int:
    """Record ``state`` for others; the record counts while the descriptor returned, its lock, is open.

    Nobody else may look for the server meanwhile.
    """
    write_private(path, json.dumps(asdict(state), indent=2))
    lock = try_lock(path)
    if lock is None:
        raise TransportError(f"another process locked {path} just as it was written", path=str(path))
    return lock


def forget_state(path: Path, name: str) -> None:
    """Remove the record if it is still that of the server called ``name``."""
    state = read_state(path)
    if state is not None and state.name == name:
        path.unlink(missing_ok=True)


def read_info(port: int, timeout: float) -> dict[str, Any] | None:
    """What the server at loopback ``port`` says on connecting; None if there is no NATS server."""
    deadline = time.monotonic() + timeout
    line = b""
    with suppress(OSError, ValueError), socket.create_connection(("127.0.0.1", port), timeout) as connection:
        while b"\r\n" not in line and len(line) < 65536 and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not (data := connection.recv(4096)):
                return None
            line += data
        info = json.loads(line.partition(b"\r\n")[0].removeprefix(b"INFO "))
        return info if isinstance(info, dict) else None
    return None


def probe(state: ServerState, timeout: float = 1.0) -> bool:
    """Whether the server of ``state`` answers at its port."""
    info = read_info(state.port, timeout)
    return info is not None and info.get("server_name") == state.name
