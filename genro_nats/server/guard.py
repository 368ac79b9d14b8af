"""A process that can't outlive its owner.

::

    owner ──pipe──▶ sh (guard) ──▶ server
                     └─ watcher: end of the pipe → SIGTERM, a second later SIGKILL

The pipe ends when the owner does, even by SIGKILL, on every POSIX system; a
parent-death signal exists on Linux only, and follows the thread, not the process.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from genro_nats.errors import TransportError

__all__ = ["GuardedProcess"]

# The watcher starts before the guard writes: if the owner is gone by then, the write ends
# the guard, and the watcher still ends the server.
_SCRIPT = """
umask 077
exec 3<&0 </dev/null
"$@" 3<&- >&2 &
server=$!
(
  exec >/dev/null 2>&1
  while read -r line <&3; do :; done
  kill -TERM "$server"
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$server" || exit 0
    sleep 0.1
  done
  kill -KILL "$server"
) &
watcher=$!
exec 3<&-
echo "$server"
exec >/dev/null
wait "$server" 2>/dev/null
status=$?
kill -KILL "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
exit "$status"
"""


class GuardedProcess:
    """A command that runs until it ends, is ended, or this process is gone.

    Args:
        command: program and arguments (visible to all users: no secrets).
        directory: its working directory.
        log: the file that its output is added to.
        keep: descriptors that it inherits, such as locks.
        timeout: seconds for the guard to come up.
    """

    def __init__(
        self, command: Sequence[str], *, directory: Path, log: Path, keep: Sequence[int], timeout: float
    ) -> None:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "genro-nats-guard", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                cwd=directory,
                pass_fds=keep,
                # Ctrl-C in a terminal goes to the owner, who may want to drain first.
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._held: int | None = None
        _close_in_forks(self)
        self.pid = self._read_pid(timeout)

    def _read_pid(self, timeout: float) -> int:
        output = self._guard.stdout
        assert output is not None
        # Not select(): it fails in a process with more than 1024 descriptors.
        with output, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            line = output.readline() if selector.select(timeout) else b""
        if not line.strip().isdigit():
            self.close()
            raise TransportError("the guard of the embedded server (/bin/sh) did not start")
        return int(line)

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self._guard.poll() is None

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end, at most ``timeout`` seconds (None: for ever); whether it came."""
        try:
            self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command, if it runs."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def hold(self, descriptor: int) -> None:
        """Close ``descriptor`` as soon as the command is to end, or this process does."""
        self._held = descriptor

    def end(self, timeout: float) -> None:
        """SIGTERM, and SIGKILL if it still runs after ``timeout`` seconds."""
        self._release()
        self.signal(signal.SIGTERM)
        if not self.wait(timeout):
            self.kill()
        self.close()

    def kill(self) -> None:
        """SIGKILL, and see it end."""
        self._release()
        self.signal(signal.SIGKILL)
        self.wait(5)
        self.close()

    def close(self) -> None:
        """Let go of the pipe, which ends what still runs, and see it end."""
        self._let_go()
        if not self.wait(5):
            self._guard.kill()
            self._guard.wait()

    def _let_go(self) -> None:
        self._release()
        if self._guard.stdin is not None:
            with suppress(OSError):
                self._guard.stdin.close()

    def _release(self) -> None:
        descriptor, self._held = self._held, None
        if descriptor is not None:
            os.close(descriptor)


def _close_in_forks(process: GuardedProcess) -> None:
    # A child forked without exec (multiprocessing's "fork") inherits the pipe, and would
    # keep the server alive after the owner's death.
    reference = weakref.ref(process)

    def close() -> None:
        inherited = reference()
        if inherited is not None:
            inherited._let_go()

    os.register_at_fork(after_in_child=close)
