"""How many CPUs this process may use."""

from __future__ import annotations

import os
import sys

__all__ = ["usable_cpus"]


def usable_cpus() -> int:
    """Return the number of CPUs this process may run on, at least 1 (CPU affinity counts)."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
