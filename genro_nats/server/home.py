"""The files of one embedded server in its directory, and who of several processes starts it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from genro_nats.errors import ConfigurationError, TransportError
from genro_nats.server.lock import is_locked, locked, remaining, try_lock
from genro_nats.server.state import ServerState, probe, read_state

__all__ = ["ServerHome", "hold_store"]

_PAUSE = 0.02


@dataclass(frozen=True)
class ServerHome:
    """A private directory with the record, locks and log of at most one running server.

    ``starting`` is held by whoever starts or looks for the server, for as long as that takes;
    the life lock by the server itself, for as long as it lives; the record's by its owner, for
    as long as the server is meant to run.
    """

    path: Path

    @property
    def record(self) -> Path:
        return self.path / "server.json"

    @property
    def life(self) -> Path:
        return self.path / "server.lock"

    @contextmanager
    def starting(self, deadline: float) -> Iterator[None]:
        with locked(self.path / "start.lock", deadline):
            yield

    def alive(self) -> bool:
        """Whether a server, ready or not, lives here now."""
        return is_locked(self.life)

    def find(self) -> ServerState | None:
        """The server that lives here, answers, and is to stay. Call it while ``starting`` is held.

        The life lock comes first: once the server has ended, a program of another user may
        take its port and answer in its name. One that answers though its owner has let go of
        it, or is gone, ends any moment, and nobody should join it.
        """
        state = read_state(self.record) if self.alive() and is_locked(self.record) else None
        return state if state is not None and probe(state) else None

    def claim(self, deadline: float) -> int | ServerState:
        """The running server, else the life lock for a new one. One that is ending is waited for."""
        while (life := try_lock(self.life)) is None:
            if (running := self.find()) is not None:
                return running
            if not remaining(deadline):
                raise TransportError(
                    f"a nats-server holds {self.life} but does not answer: "
                    f"end it, or give another directory (its log: {self.path / 'nats-server.log'})"
                )
            time.sleep(_PAUSE)
        return life


def hold_store(store: Path, user: Path, deadline: float) -> int:
    """Lock a JetStream store, which two servers must never share, for the server of ``user``.

    Raises:
        ConfigurationError: another server still has it at ``deadline`` (monotonic).
    """
    path = store / "store.lock"
    while (descriptor := try_lock(path)) is None:
        if not remaining(deadline):
            raise ConfigurationError(
                f"the JetStream store {store} is in use by the server of {path.read_text('utf-8')}: "
                f"give another store_dir=, or set GENRO_NATS_HOME to that directory to join it"
            )
        time.sleep(_PAUSE)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(user).encode("utf-8", "backslashreplace"))
    return descriptor
