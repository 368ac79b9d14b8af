"""The template process: imports what children need, then forks them on request.

``main(CONTROL)`` where CONTROL is the number of an inherited socket. Over it
come JSON lines, some with descriptors beside::

    {"start": {"path": [...], "imports": [...], "hints": [...]}}
                                                   first; answered {"ready": true} or {"failed": text}
    {"spawn": N, "setup": {...}} + pipe, tokens    answered {"spawned": N, "pid": P}
                                                   or {"refused": N, "error": text}
    {"kill": P}                                    SIGKILL to a child not yet reaped

and ``{"exited": P, "status": S}`` goes back for each child that ended (S as
in ``subprocess``: negative for a signal). One process, one thread: forking is
safe, and children share the memory of what was imported. When an import left
threads behind, or the platform can't fork safely, children are started as
programs of their own instead.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from typing import Any, Final

from genro_nats.executor.children.setup import OWNER_SIGNALS, ChildSetup, command_line, signals_held
from genro_nats.worker.child import load_mode, run_child
from genro_nats.worker.setup import die_with_parent, preload

__all__ = ["Template", "main"]

_LINE: Final = 1 << 20  # bytes of one command at most


class Template:
    """Obeys the control socket until it closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._rest = b""
        self._fds: list[int] = []
        self._programs: dict[int, subprocess.Popen[bytes]] = {}
        self._children: set[int] = set()
        self._start_message: dict[str, Any] = {}
        self._loaded: set[str] = set()

    def serve(self) -> None:
        """Read commands and reap children until the owner closes the socket."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        os.set_blocking(wake_r, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            readable, _, _ = select.select([self._control.fileno(), wake_r], [], [])
            if wake_r in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_r, 4096)
            self._reap()
            if self._control.fileno() in readable and not self._read():
                return

    def _read(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, 65536, 16)
        self._fds += fds
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data) and len(self._rest) < _LINE

    def _tell(self, **message: Any) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _obey(self, command: dict[str, Any]) -> None:
        if "spawn" in command:
            pipe, tokens = self._fds[:2]
            del self._fds[:2]
            try:
                pid = self._spawn(pipe, tokens, command["setup"])
            except OSError as error:  # too many processes, too little memory
                self._tell(refused=command["spawn"], error=str(error))
            else:
                self._children.add(pid)
                self._tell(spawned=command["spawn"], pid=pid)
            os.close(pipe)
            os.close(tokens)
        elif "kill" in command:
            if command["kill"] in self._children:
                os.kill(command["kill"], signal.SIGKILL)
        elif "start" in command:
            self._start(command["start"])

    def _start(self, start: dict[str, Any]) -> None:
        self._start_message = start
        try:
            preload(start)
        except BaseException:
            self._tell(failed=traceback.format_exc())
            return
        gc.collect()
        gc.freeze()
        self._tell(ready=True)

    def _spawn(self, pipe: int, tokens: int, setup: dict[str, Any]) -> int:
        if sys.platform == "darwin" or threading.active_count() > 1:
            return self._start_program(pipe, tokens, setup)
        self._load(setup["mode"])
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Native threads of libraries (BLAS) handle a fork; Python's own were ruled out above.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self._become_child(pipe, tokens, setup)
        return pid

    def _load(self, mode: str) -> None:
        """Before the first child of this mode: it takes longer than the fork, and memory in each."""
        if mode not in self._loaded:
            self._loaded.add(mode)
            load_mode(mode)
            gc.collect()
            gc.freeze()

    def _start_program(self, pipe: int, tokens: int, setup: dict[str, Any]) -> int:
        given = json.dumps({"pipe": pipe, "tokens": tokens, "setup": setup, "start": self._start_message})
        with signals_held():
            program = subprocess.Popen(
                command_line("genro_nats.worker.child", given), pass_fds=(pipe, tokens)
            )
        self._programs[program.pid] = program
        return program.pid

    def _become_child(self, pipe: int, tokens: int, setup: dict[str, Any]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            run_child(socket.socket(fileno=pipe), tokens, ChildSetup(**setup))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._children.discard(pid)
            self._programs.pop(pid, None)
            self._tell(exited=pid, status=os.waitstatus_to_exitcode(status))


def main(control: str) -> None:
    """Serve the control socket with this number."""
    die_with_parent()
    for number in OWNER_SIGNALS:
        signal.signal(number, lambda *_: None)  # the owner decides, see setup.prepare_child
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OWNER_SIGNALS)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Template(socket.socket(fileno=int(control))).serve()
