"""The highest memory of processes while something runs. Linux; elsewhere nothing is seen.

What a process has for itself is counted as its own. Anonymous files (memfd), which processes hand
to each other, are counted once, as what the machine's shared memory grew by: to the worker, since
callers use none.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from genro_nats.bench.processes import family

__all__ = ["MemoryPeaks"]

_EVERY: Final = 0.01  # seconds


class MemoryPeaks:
    """``with MemoryPeaks(worker_pid) as peaks``: bytes added to caller (this process) and worker at most."""

    def __init__(self, worker: int) -> None:
        self._pids = family(worker)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.caller = 0
        self.worker = 0

    def __enter__(self) -> Self:
        self._base = self._now()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_EVERY):
            caller, worker = self._now()
            self.caller = max(self.caller, caller - self._base[0])
            self.worker = max(self.worker, worker - self._base[1])

    def _now(self) -> tuple[int, int]:
        return _own(os.getpid()), sum(map(_own, self._pids)) + _kib("/proc/meminfo", "Shmem")


def _own(pid: int) -> int:
    return _kib(f"/proc/{pid}/status", "RssAnon")


def _kib(path: str, name: str) -> int:
    """A figure in bytes; 0 where it is not told."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{name}:\s+(\d+) kB", Path(path).read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    return 0
