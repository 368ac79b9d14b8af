"""Starts and ends the template process, and asks it for children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from genro_nats.errors import ConfigurationError, ExecutorError
from genro_nats.executor.children.setup import command_line, search_path, signals_held

__all__ = ["Spawner"]

_END_TIMEOUT: Final = 2.0  # seconds for the template to leave once its control socket is closed


class Spawner:
    """The owner's side of ``worker/template.py``. Belongs to the event loop that starts it.

    ``on_lost()`` is called when the template ended without being asked to.
    """

    def __init__(self, imports: Sequence[str], hints: Sequence[str], on_lost: Callable[[], None]) -> None:
        self._start_message = {"path": search_path(), "imports": list(imports), "hints": list(hints)}
        self._on_lost = on_lost
        self._exits: dict[int, Callable[[int], None]] = {}
        self._early: dict[int, int] = {}
        self._spawning: dict[int, asyncio.Future[int]] = {}
        self._number = 0
        self._rest = b""
        self._closed = False
        self._begun = False
        self._settled = asyncio.Event()  # it has started, or never will

    async def start(self, timeout: float) -> None:
        """Start the template and wait until it has imported what was asked.

        Raises:
            ConfigurationError: an import failed; the text holds the traceback.
            ExecutorError: the template ended, or ``timeout`` (seconds) passed.
        """
        self._loop = asyncio.get_running_loop()
        self._begun = True
        self._control, theirs = socket.socketpair()
        command = command_line("genro_nats.worker.template", str(theirs.fileno()))
        with signals_held():
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        theirs.close()
        self._control.setblocking(False)
        self._ready = self._loop.create_future()
        self._loop.add_reader(self._control.fileno(), self._readable)
        self._tell({"start": self._start_message})
        try:
            async with asyncio.timeout(timeout):
                await self._ready
            self._settled.set()
        except BaseException as error:
            await self.aclose()
            if isinstance(error, TimeoutError):
                raise ExecutorError(
                    f"The children's imports took longer than {timeout:g} s (start_timeout)."
                ) from None
            raise

    async def spawn(
        self, setup: Any, pipe: socket.socket, tokens: int, on_exit: Callable[[int], None]
    ) -> int:
        """A new child that owns ``pipe`` and ``tokens`` (read end); its pid.

        ``on_exit(status)`` is called once it has ended; negative: the signal.
        Waits while the template is being started; raises ExecutorError when it has ended.
        """
        await self._settled.wait()
        if self._closed:
            raise ExecutorError("The process that starts children has ended.")
        self._number += 1
        future = self._spawning[self._number] = self._loop.create_future()
        self._tell({"spawn": self._number, "setup": asdict(setup)}, [pipe.fileno(), tokens])
        try:
            pid: int = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._disown(future.result())
            raise
        if pid in self._early:
            on_exit(self._early.pop(pid))
        else:
            self._exits[pid] = on_exit
        return pid

    def _disown(self, pid: int) -> None:
        """Nobody waits for this child any more."""
        if self._early.pop(pid, None) is None:
            self._exits[pid] = _no_exit_handler
            self.kill(pid)

    def kill(self, pid: int) -> None:
        """SIGKILL a child; nothing happens to one that has already ended."""
        if self._begun and not self._closed:
            self._tell({"kill": pid})

    async def aclose(self) -> None:
        """End the template, and with it every child that is left."""
        if self._closed or not self._begun:
            self._closed = True
            self._settled.set()
            return
        self._closed = True
        self._settled.set()
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._fail(ExecutorError("The pool is closing."))
        await asyncio.to_thread(self._wait)

    def abandon(self) -> None:
        """As ``aclose`` without waiting, for an owner whose event loop is gone."""
        if self._closed or not self._begun:
            return
        self._closed = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT)

    def _wait(self) -> None:
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def look(self) -> None:
        """Hear now what the template has said, its end included."""
        if self._begun and not self._closed:
            self._readable()

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        # Commands are a few hundred bytes: the socket takes them whole or is broken.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(message).encode() + b"\n"], fds)

    def _readable(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._lost()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._heard(json.loads(line))

    def _heard(self, message: dict[str, Any]) -> None:
        if "spawned" in message:
            future = self._spawning.pop(message["spawned"])
            if future.done():
                self._disown(message["pid"])
            else:
                future.set_result(message["pid"])
        elif "refused" in message:
            future = self._spawning.pop(message["refused"])
            if not future.done():
                future.set_exception(ExecutorError(f"A child can't be started: {message['error']}"))
        elif "exited" in message:
            on_exit = self._exits.pop(message["exited"], None)
            if on_exit is None:
                self._early[message["exited"]] = message["status"]
            else:
                on_exit(message["status"])
        elif "failed" in message:
            self._fail(
                ConfigurationError(
                    f"A module to be preloaded in children can't be imported:\n{message['failed']}"
                )
            )
        elif "ready" in message and not self._ready.done():
            self._ready.set_result(None)

    def _lost(self) -> None:
        self._loop.remove_reader(self._control.fileno())
        self._closed = True
        started = self._settled.is_set()
        self._settled.set()
        self._control.close()
        self._process.kill()
        status = self._process.wait()
        self._fail(ExecutorError(f"The process that starts children ended unexpectedly (status {status})."))
        if started:  # else who waits for the start is told
            self._on_lost()
        exits, self._exits = self._exits, {}
        for on_exit in exits.values():
            on_exit(-9)  # the kernel kills children together with their template

    def _fail(self, error: ExecutorError) -> None:
        for future in [self._ready, *self._spawning.values()]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits sees it; nobody waiting is no fault
        self._spawning.clear()


def _no_exit_handler(status: int) -> None:
    """Nothing: who asked for the child had left before it came."""
