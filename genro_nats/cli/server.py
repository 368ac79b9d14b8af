"""``genro-nats server``: the embedded nats-server, in the foreground until a signal."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import Any, Final

from genro_nats.cli.arguments import quantity
from genro_nats.config import parse_size
from genro_nats.errors import ExecutorError, TransportError
from genro_nats.server import EmbeddedServer, running_embedded
from genro_nats.server.home import ServerHome

__all__ = ["add_arguments", "run"]

_LOOK: Final = 0.2  # seconds between two looks whether a signal came
_EPILOG: Final = """\
examples:
  genro-nats server
  genro-nats server --port 4222 --store-dir ./streams --monitoring

It listens on loopback only, and only who can read the credentials file is let in:
every pool and worker of this user with url="embedded" finds it by that file.
GENRO_NATS_HOME names another directory for it. SIGTERM or Ctrl-C ends it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("--port", type=int, help="port on loopback; default: a free one")
    parser.add_argument("--store-dir", type=Path, metavar="DIR", help="where JetStream keeps its streams")
    parser.add_argument(
        "--max-payload",
        type=quantity(parse_size),
        default=64 * 1024**2,
        metavar="SIZE",
        help="largest message; default 64MiB",
    )
    parser.add_argument("--monitoring", action="store_true", help="serve statistics over HTTP on loopback")
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the server until SIGINT or SIGTERM; the exit code.

    Raises:
        ExecutorError: one runs already, it can't be started, or it ended by itself.
    """
    _refuse_second()
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: asked.append(signum))
    server = EmbeddedServer(
        port=arguments.port,
        store_dir=arguments.store_dir,
        max_payload=arguments.max_payload,
        monitoring=arguments.monitoring,
        reuse=False,
    )
    with server:
        _show(server, as_json=arguments.json)
        while not asked:
            if server.wait(_LOOK) and not asked:
                raise TransportError(f"The nats-server ended by itself; its log is {server.log}")
    return 0


def _refuse_second() -> None:
    running = running_embedded()
    if running is not None:
        raise ExecutorError(
            f"A server of this user already runs at {running.url} (pid {running.pid}): "
            'use it with url="embedded", end it, or set GENRO_NATS_HOME to another directory.'
        )


def _show(server: EmbeddedServer, *, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "url": server.url,
        "pid": server.pid,
        "version": ".".join(map(str, server.version)),
        "credentials": str(ServerHome(server.directory).record),
        "log": str(server.log),
        "monitoring": server.monitoring_url,
    }
    if as_json:
        print(json.dumps(facts), flush=True)
        return
    monitoring = f"  statistics   {facts['monitoring']}\n" if facts["monitoring"] else ""
    print(
        f"nats-server {facts['version']} (pid {facts['pid']}) at {facts['url']}\n"
        f"  credentials  {facts['credentials']}\n"
        f"  log          {facts['log']}\n{monitoring}"
        "Start a worker:\n"
        "  genro-nats worker --url embedded --subject tasks.heavy --import myapp.tasks\n"
        "Ctrl-C ends it.",
        flush=True,
    )
