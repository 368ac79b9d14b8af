"""Processor time and memory of processes: from /proc on Linux, from one ``ps`` elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["AT_ONCE", "Usage", "usage"]

AT_ONCE: Final = sys.platform == "linux"  # reading takes microseconds; elsewhere it takes a program
_TICKS: Final = os.sysconf("SC_CLK_TCK") if AT_ONCE else 100
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if AT_ONCE else 4096


class Usage(NamedTuple):
    """``cpu``: seconds of processor time since the process began. ``memory``: resident bytes."""

    cpu: float
    memory: int


def usage(pids: Iterable[int]) -> dict[int, Usage]:
    """What each process that lives uses."""
    if not AT_ONCE:
        return _from_ps(pids)
    found = {pid: _from_proc(pid) for pid in pids}
    return {pid: used for pid, used in found.items() if used is not None}


def _from_proc(pid: int) -> Usage | None:
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)


def _from_ps(pids: Iterable[int]) -> dict[int, Usage]:
    listed = ",".join(map(str, pids))
    if not listed:
        return {}
    lines = subprocess.run(
        ["ps", "-o", "pid=,rss=,time=", "-p", listed], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    found = {}
    for pid, kilobytes, time in (line.split() for line in lines):
        found[int(pid)] = Usage(_seconds(time), int(kilobytes) * 1024)
    return found


def _seconds(text: str) -> float:
    """``[days-][hours:]minutes:seconds`` as seconds."""
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total + 86400 * int(days or 0)
