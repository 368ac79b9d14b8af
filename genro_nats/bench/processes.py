"""Memory and processor time of processes: from /proc on Linux, from ps elsewhere."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from genro_nats.worker import setup

__all__ = ["MEMORY", "cpu_seconds", "family", "memory", "resident"]

MEMORY: Final = "PSS" if sys.platform == "linux" else "RSS"  # what `memory` tells
_LINUX: Final = sys.platform == "linux"


def family(pid: int) -> list[int]:
    """The ids of a process and of all that descend from it."""
    parents = _parents_from_proc() if _LINUX else _parents_from_ps()
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 for one that has ended."""
    if not _LINUX:
        return _seconds(_ps("-o", "time=", "-p", str(pid)))
    # In nanoseconds, thread by thread: the ticks of 10 ms in stat are too coarse for idle processes.
    total = 0
    for entry in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(entry.read_bytes().split()[0])
    return total / 1e9


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    if _LINUX:
        return setup.resident(pid)
    return int(_ps("-o", "rss=", "-p", str(pid)) or 0) * 1024


def memory(pid: int) -> int:
    """Bytes of memory of a process, with what it shares counted in part where the system tells it."""
    if not _LINUX:
        return resident(pid)
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return resident(pid)
    shares = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(shares[1]) * 1024 if shares else resident(pid)


def _parents_from_proc() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have just ended
            # The name, in parentheses, may hold anything.
            found[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    return found


def _parents_from_ps() -> dict[int, int]:
    return {
        int(pid): int(parent) for pid, parent in map(str.split, _ps("-ax", "-o", "pid=,ppid=").splitlines())
    }


def _seconds(text: str) -> float:
    total = 0.0
    for part in text.strip().split(":"):
        total = total * 60 + float(part or 0)
    return total


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout
