"""What a child is told when it is started, its command line, and the signals that wait meanwhile."""

from __future__ import annotations

import signal
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

__all__ = ["OWNER_SIGNALS", "ChildSetup", "command_line", "search_path", "signals_held"]

OWNER_SIGNALS: Final = frozenset(
    number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP")
)
_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; del sys.argv[2:]; from {} import main; main(sys.argv[1])"
)


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """Plain data, sent as JSON.

    ``mode``: "sync", "threads" or "async"; ``slots``: calls that may run at
    once; ``pool`` and ``address``: what ``current_call()`` shows; ``max_memory``:
    bytes above which the child asks to be replaced. ``only_registered``, ``allow``: which
    functions it runs; ``initial``: the name of the call that its parent sends first, if any.
    ``max_payload``: bytes that a compressed call may become.
    """

    mode: str = "sync"
    slots: int = 1
    pool: str = ""
    address: str = ""
    max_memory: int | None = None
    only_registered: bool = False
    allow: Sequence[str] = ()
    initial: str = ""
    max_payload: int = 4 << 30


def search_path() -> list[str]:
    """This process's ``sys.path``, for another process's."""
    return [str(path) for path in sys.path]


def command_line(module: str, argument: str) -> list[str]:
    """A program that runs ``module.main(argument)`` with what can be imported here.

    Neither ``-m`` nor PYTHONPATH: the one puts the working directory first, so that a
    ``random.py`` there would break it, the other would reach programs that user code starts.
    """
    # The standard library first, for our own imports; user code gets the true order, see Template.
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    standard.add(sysconfig.get_config_var("DESTSHARED"))
    path = sorted((path or "." for path in search_path()), key=lambda path: path not in standard)
    return [sys.executable, "-P", "-c", _BOOT.format(module), argument, *path]


@contextmanager
def signals_held() -> Iterator[None]:
    """A program started in here begins with the signals blocked that its owner decides about.

    A Ctrl-C that reaches the whole group would else end it before it has handlers; it
    unblocks them once it has.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OWNER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
