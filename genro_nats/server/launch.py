"""One start of nats-server: write its configuration, run it, wait until it serves."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genro_nats.errors import TransportError
from genro_nats.server.binary import find_server
from genro_nats.server.config import ServerConfig
from genro_nats.server.guard import GuardedProcess
from genro_nats.server.lock import remaining
from genro_nats.server.paths import write_private
from genro_nats.server.state import ServerState, read_info

__all__ = ["launch"]

_PAUSE = 0.005
_LAST_LINES = 15


def launch(
    config: ServerConfig, *, locks: Sequence[int], deadline: float
) -> tuple[GuardedProcess, ServerState]:
    """Start nats-server as ``config`` says and return once it answers at its port.

    ``locks`` are held until it ends.

    Raises:
        ConfigurationError: there is no nats-server executable.
        TransportError: it ended, or was not ready at ``deadline`` (monotonic); the text has
            the last lines of its log.
    """
    executable = find_server()
    for left_over in config.directory.glob("*.ports"):
        left_over.unlink(missing_ok=True)
    path = config.directory / "nats-server.conf"
    write_private(path, config.render())
    log_starts = config.log.stat().st_size if config.log.exists() else 0
    process = GuardedProcess(
        [str(executable), "-c", str(path)],
        directory=config.directory,
        log=config.log,
        keep=locks,
        timeout=remaining(deadline),
    )
    try:
        return process, _until_ready(config, process, deadline)
    except BaseException as error:
        process.end(1.0)
        if isinstance(error, _NotReady):
            raise _failure(config, str(error), log_starts) from None
        raise


class _NotReady(Exception):
    pass


def _until_ready(config: ServerConfig, process: GuardedProcess, deadline: float) -> ServerState:
    while process.running:
        if (state := _ready_state(config, process.pid, remaining(deadline))) is not None:
            return state
        if not remaining(deadline):
            raise _NotReady("was not ready in time")
        time.sleep(_PAUSE)
    raise _NotReady("ended while it started")


def _ready_state(config: ServerConfig, pid: int, timeout: float) -> ServerState | None:
    ports = _read_ports(config.directory, pid)
    if not ports.get("nats"):
        return None
    info = read_info(_port(ports["nats"][0]), timeout)
    if info is None or info.get("server_name") != config.name:
        return None
    return ServerState(
        name=config.name,
        pid=pid,
        port=_port(ports["nats"][0]),
        user=config.user,
        password=config.password,
        version=str(info.get("version", "")),
        max_payload=config.max_payload,
        jetstream=config.store_dir is not None,
        store_dir=None if config.store_dir is None else str(config.store_dir),
        monitoring_url=next(iter(ports.get("monitoring", ())), None),
    )


def _read_ports(directory: Path, pid: int) -> dict[str, Any]:
    # The server puts its executable's name before the pid; half a file is read again later.
    for path in directory.glob(f"*_{pid}.ports"):
        with suppress(OSError, ValueError):
            return dict(json.loads(path.read_text("utf-8")))
    return {}


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _failure(config: ServerConfig, what: str, log_starts: int) -> TransportError:
    lines = _log_since(config.log, log_starts).replace(config.password, "***").splitlines()[-_LAST_LINES:]
    said = "\n".join(lines) or "(nothing)"
    return TransportError(
        f"the embedded nats-server of {config.directory} {what}; its log ({config.log}) says:\n{said}",
        log=str(config.log),
    )


def _log_since(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
