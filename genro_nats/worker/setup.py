"""The process-wide settings a child makes at its start: signals, its end, its memory."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from genro_nats.codec.frame import Flag
from genro_nats.codec.functions import FunctionCache
from genro_nats.codec.registered import RegisteredFunctions, require_listed
from genro_nats.executor.children.setup import OWNER_SIGNALS, ChildSetup
from genro_nats.message import mark_child

__all__ = ["MemoryLimit", "die_with_parent", "function_cache", "preload", "prepare_child", "resident"]

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_MEMORY_INTERVAL: Final = 0.05  # seconds between two looks at the memory in use


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends (Linux; elsewhere EOF does it)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def prepare_child() -> None:
    """Signals, the parent-death signal, and the mark that this is a child."""
    # A terminal's Ctrl-C and an init system's SIGTERM reach the whole group: the
    # parent decides. Handlers, not SIG_IGN, because those would be inherited by
    # programs that user code starts.
    for number in OWNER_SIGNALS:
        signal.signal(number, _left_to_parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OWNER_SIGNALS)
    die_with_parent()
    mark_child()
    _reseed()


def _left_to_parent(number: int, frame: object) -> None:
    """Nothing: the parent decides what a signal means."""


def _reseed() -> None:
    # Python reseeds its own generator after a fork; NumPy's old global one would
    # give every child the same numbers.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def function_cache(setup: ChildSetup) -> FunctionCache:
    """Where this child finds its functions, and what it takes from the wire."""
    if setup.only_registered:
        return RegisteredFunctions(setup.allow, setup.initial)
    return FunctionCache()


def preload(start: dict[str, Any]) -> None:
    """Import what a start message names, with its search path.

    Raises what the imports raise, ConfigurationError for a "module:name" that is not there.
    """
    sys.path[:] = start["path"]
    for module in start["hints"]:
        # The calls themselves will say what is wrong with these.
        with contextlib.suppress(BaseException):
            importlib.import_module(module)
    for module in start["imports"]:
        importlib.import_module(module.partition(":")[0])
    require_listed(name for name in start["imports"] if ":" in name)


class MemoryLimit:
    """Tells when the process holds more memory than allowed (``max_memory_per_child``)."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._looked_at = 0.0

    def flag(self) -> int:
        """Flag.RETIRE once over the limit, else 0."""
        if self._limit is None:
            return 0
        now = time.monotonic()
        if now - self._looked_at < _MEMORY_INTERVAL:
            return 0
        self._looked_at = now
        return Flag.RETIRE if _held() > self._limit else 0


def resident(process: int | str) -> int:
    """Bytes of memory that a process ("self": this one) holds now; raises OSError where there is no /proc."""
    pages = int(Path(f"/proc/{process}/statm").read_bytes().split()[1])
    return pages * resource.getpagesize()


def _held() -> int:
    """Bytes of memory this process holds now (where only the peak is known: the peak)."""
    try:
        return resident("self")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
