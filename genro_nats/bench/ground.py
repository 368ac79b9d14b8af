"""What scenarios over NATS stand on: a server of their own, echoes and workers beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genro_nats.bench.peer import Peer, has_uvloop
from genro_nats.bench.plan import CHILDREN
from genro_nats.server import EmbeddedServer

__all__ = ["bench_server", "echo_peer", "login", "pool_options", "task_floor_peer", "worker_peer"]


@contextmanager
def bench_server(*, jetstream: bool = False) -> Iterator[EmbeddedServer]:
    """A server in a directory that ends with it; it takes messages of 64 MB.

    One with ``jetstream`` keeps streams in files, and tells statistics over HTTP.
    """
    with (
        tempfile.TemporaryDirectory(prefix="genro-nats-bench-") as directory,
        EmbeddedServer(
            directory=Path(directory), jetstream=jetstream, monitoring=jetstream, reuse=False
        ) as server,
    ):
        yield server


def login(server: EmbeddedServer) -> dict[str, str]:
    """Where the server is, and who may enter."""
    return {"url": server.url, "user": server.user, "password": server.password}


def echo_peer(server: EmbeddedServer, subject: str, *, uvloop: bool) -> Peer:
    """A bare nats-py echo, not yet started."""
    return Peer("genro_nats.bench.echo", {**login(server), "subject": subject, "uvloop": uvloop})


def task_floor_peer(server: EmbeddedServer) -> Peer:
    """A bare nats-py worker of tasks, not yet started; its streams are there before."""
    return Peer("genro_nats.bench.task_echo", {**login(server), "uvloop": False})


def pool_options(server: EmbeddedServer, subject: str) -> dict[str, Any]:
    """Options of a pool over this server, for its caller and its worker."""
    return {**login(server), "subject": subject, "max_workers": CHILDREN}


def worker_peer(server: EmbeddedServer, subject: str) -> Peer:
    """A worker with two children, not yet started; on uvloop where that is installed."""
    options = pool_options(server, subject)
    return Peer("genro_nats.bench.worker", {"options": options, "uvloop": has_uvloop()})
