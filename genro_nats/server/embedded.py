"""The embedded server as its users see it: start or join one, use it, end it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from genro_nats.errors import ConfigurationError
from genro_nats.server.binary import parse_version
from genro_nats.server.guard import GuardedProcess
from genro_nats.server.home import ServerHome, hold_store
from genro_nats.server.launch import launch
from genro_nats.server.lock import remaining
from genro_nats.server.options import MAX_PAYLOAD, ServerOptions, check_joinable
from genro_nats.server.paths import private_directory, shared_directory
from genro_nats.server.state import ServerState, forget_state, probe, write_state

__all__ = ["EmbeddedServer", "embedded_connection", "running_embedded"]

_PAUSE = 0.02


class EmbeddedServer:
    """A nats-server on loopback whose credentials only this user can read.

    It ends with the process that started it, even when that is killed. A server that
    already runs in the directory is joined instead (``owned`` is then False), and goes
    on when this process stops.

    Args:
        directory: for credentials, log and lock; made with mode 0700. None: the one that all
            processes of this user share (``GENRO_NATS_HOME``, else in ``XDG_RUNTIME_DIR``,
            else in the user's cache).
        store_dir: where JetStream keeps its streams. None: ``store`` in the directory; for
            the shared server, in the user's cache, so that streams outlive the login.
        port: None takes a free one.
        max_payload: the largest message, bytes.
        reuse: join a running server; False makes a running one an error.
        jetstream: offer streams.
        monitoring: serve statistics over HTTP, on loopback. Any local user can read them.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        store_dir: Path | None = None,
        port: int | None = None,
        max_payload: int = MAX_PAYLOAD,
        reuse: bool = True,
        jetstream: bool = True,
        monitoring: bool = False,
    ) -> None:
        self._options = ServerOptions(
            directory=directory,
            store_dir=store_dir,
            port=port,
            max_payload=max_payload,
            reuse=reuse,
            jetstream=jetstream,
            monitoring=monitoring,
        )
        self._home: ServerHome | None = None
        self._state: ServerState | None = None
        self._process: GuardedProcess | None = None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        if self._state is None:
            return "<EmbeddedServer, not started>"
        return f"<EmbeddedServer {self.url} pid={self.pid} owned={self.owned}>"

    # -- life ------------------------------------------------------------------

    def start(self, timeout: float = 10.0) -> Self:
        """Start the server, or join the one that runs; return when it answers. Blocks.

        Does nothing if it runs already. ``timeout`` is in seconds.

        Raises:
            ConfigurationError: no executable, a directory open to others, or a running server
                that is not as asked (or any, with ``reuse=False``).
            TransportError: the server ended or was not ready in time; with its last log lines.
        """
        _require_posix()
        if self._state is not None and self.running:
            return self
        self._let_go()
        deadline = time.monotonic() + timeout
        home = ServerHome(private_directory(self.directory.absolute()))
        with home.starting(deadline):
            self._begin(home, None, deadline)
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """End the server if this process owns it, else just let go of it. Can be repeated.

        What still runs after ``timeout`` seconds is killed. Blocks.
        """
        if self._process is not None and self._owner == os.getpid():
            self._process.end(timeout)
        self._let_go()

    def restart(self, timeout: float = 10.0) -> None:
        """End the owned server if it still runs, and start it with the same port, store and credentials.

        Raises:
            ConfigurationError: it was joined, not started here.
            TransportError: as ``start``, also when something else took the port.
        """
        process, state = self._own_process(), self.state
        deadline = time.monotonic() + timeout
        home = ServerHome(self.directory)
        # Held all the time: who looks for the server meanwhile waits for the new one.
        with home.starting(deadline):
            process.end(timeout)
            self._begin(home, state, deadline)

    def kill(self) -> None:
        """SIGKILL the owned server and see it end; for tests of what survives that.

        Raises:
            ConfigurationError: it was joined, not started here.
        """
        self._own_process().kill()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended, at most ``timeout`` seconds (None: for ever).

        Returns whether it has.
        """
        if self._process is not None:
            return self._process.wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running:
            if deadline is not None and not remaining(deadline):
                return False
            time.sleep(_PAUSE)
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- facts -----------------------------------------------------------------

    @property
    def state(self) -> ServerState:
        """All facts of the server; ConfigurationError before ``start``."""
        if self._state is None:
            raise ConfigurationError("the embedded server is not started: call start() first")
        return self._state

    @property
    def running(self) -> bool:
        """Whether the server is alive now."""
        if self._state is None:
            return False
        if self._process is not None:
            return self._process.running
        return self._home is not None and self._home.alive() and probe(self._state)

    @property
    def owned(self) -> bool:
        """Whether this object started the server and ends it; False for one that was joined."""
        return self._process is not None and self._owner == os.getpid()

    @property
    def url(self) -> str:
        """Where clients connect; without credentials."""
        return f"nats://127.0.0.1:{self.state.port}"

    @property
    def port(self) -> int:
        """The port on loopback; the same after ``restart``."""
        return self.state.port

    @property
    def user(self) -> str:
        """The only user that the server lets in."""
        return self.state.user

    @property
    def password(self) -> str:
        """Its password: fresh on every ``start``, the same after ``restart``."""
        return self.state.password

    @property
    def pid(self) -> int:
        """The process id of nats-server itself."""
        return self.state.pid

    @property
    def version(self) -> tuple[int, int, int]:
        """The server's version."""
        return parse_version(self.state.version, self.url)

    @property
    def monitoring_url(self) -> str | None:
        """Where statistics are served over HTTP; None without ``monitoring``."""
        return self.state.monitoring_url

    @property
    def directory(self) -> Path:
        """Where credentials and log are."""
        return self._home.path if self._home else self._options.directory or shared_directory()

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "nats-server.log"

    # -- how -------------------------------------------------------------------

    def _own_process(self) -> GuardedProcess:
        if self._process is None or self._owner != os.getpid():
            raise ConfigurationError("only the process that started the embedded server may end it")
        return self._process

    def _join_running(self, timeout: float) -> bool:
        _require_posix()
        if not self.directory.is_dir():
            return False
        home = ServerHome(private_directory(self.directory.absolute()))
        with home.starting(time.monotonic() + timeout):
            self._state = home.find()
        self._home = home
        return self._state is not None

    def _let_go(self) -> None:
        if self._process is not None and self.owned and self._home is not None:
            self._process.close()
            forget_state(self._home.record, self.state.name)
        self._home = self._state = self._process = None

    def _begin(self, home: ServerHome, last: ServerState | None, deadline: float) -> None:
        claimed = home.claim(deadline)
        if isinstance(claimed, ServerState):
            check_joinable(claimed, self._options, home.path, restarting=last is not None)
            self._state = claimed
        else:
            try:
                self._launch(home, claimed, last, deadline)
            finally:
                # The server has its own copy by now; the lock is to end when that does.
                os.close(claimed)
        self._home = home

    def _launch(self, home: ServerHome, life: int, last: ServerState | None, deadline: float) -> None:
        store = self._options.store(home.path)
        keep = [life] if store is None else [life, hold_store(store, home.path, deadline)]
        try:
            # Until the new one answers, nobody may take an old record for it.
            home.record.unlink(missing_ok=True)
            config = self._options.config(home.path, store, last)
            self._process, self._state = launch(config, locks=keep, deadline=deadline)
            self._owner = os.getpid()
            self._process.hold(write_state(home.record, self._state))
        finally:
            for descriptor in keep[1:]:
                os.close(descriptor)


def embedded_connection(*, reuse: bool = True, directory: Path | None = None) -> EmbeddedServer:
    """A started server for ``url="embedded"``: the one of this user that runs, else a new one.

    Blocks for up to 10 s; the caller calls ``stop`` when done. Raises as ``EmbeddedServer.start``.
    """
    return EmbeddedServer(reuse=reuse, directory=directory).start()


def running_embedded(directory: Path | None = None, timeout: float = 10.0) -> EmbeddedServer | None:
    """The server that runs in ``directory`` (None: the shared one), joined; None if there is none.

    Starts nothing. One that is being started is waited for, ``timeout`` seconds at most.

    Raises:
        ConfigurationError: the directory is open to other users.
    """
    server = EmbeddedServer(directory=directory)
    return server if server._join_running(timeout) else None


def _require_posix() -> None:
    if sys.platform == "win32":
        raise ConfigurationError("the embedded server runs on Linux and macOS: give a nats-server's url=")
