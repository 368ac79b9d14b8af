"""The main program of a child process.

Usually a child is forked by ``template.py`` and begins at ``run_child``; it is
started as a program of its own where forking would not be safe.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import socket
import sys
import threading

from genro_nats.executor.children.setup import ChildSetup
from genro_nats.transport.pipe import BlockingPipe
from genro_nats.worker.setup import preload, prepare_child

__all__ = ["load_mode", "main", "run_child"]


def run_child(pipe: socket.socket, tokens: int, setup: ChildSetup) -> None:
    """Serve calls until the parent closes the pipe."""
    prepare_child()
    pipe.setblocking(True)
    if sys.platform != "linux":
        threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    # When the parent is gone, so are we.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _serve(pipe, tokens, setup)


def load_mode(mode: str) -> None:
    """Import what children of this mode need, so that those who are forked later share it."""
    module = {"async": "async_child", "threads": "threaded_child"}.get(mode, "sync_child")
    importlib.import_module(f"genro_nats.worker.{module}")


def _serve(pipe: socket.socket, tokens: int, setup: ChildSetup) -> None:
    if setup.mode == "async":
        from genro_nats.worker.async_child import AsyncChild

        AsyncChild(pipe, setup).serve()
    elif setup.mode == "threads":
        from genro_nats.worker.threaded_child import ThreadedChild

        ThreadedChild(BlockingPipe(pipe), setup).serve()
    else:
        from genro_nats.worker.sync_child import SyncChild

        SyncChild(BlockingPipe(pipe), tokens, setup).serve()


def _end_with(pipe: socket.socket) -> None:
    """Where no parent-death signal exists: end this process when the parent's end of the pipe closes."""
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLHUP)
    while not any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll()):
        pass
    os._exit(1)


def main(given: str) -> None:
    """Start as a program: two inherited descriptors' numbers, the setup and what to import, as JSON."""
    told = json.loads(given)
    # Before the imports: code may ask whether this is a child, and a stuck one has to die with its parent.
    prepare_child()
    preload(told["start"])
    run_child(socket.socket(fileno=told["pipe"]), told["tokens"], ChildSetup(**told["setup"]))
