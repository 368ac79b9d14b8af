"""Scenario ``idle``: what a worker that nobody calls takes of processor and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from genro_nats.bench.ground import bench_server, worker_peer
from genro_nats.bench.plan import Plan
from genro_nats.bench.processes import MEMORY, cpu_seconds, family, memory
from genro_nats.bench.progress import Progress

__all__ = ["IdleFigures", "measure_idle"]

_SETTLING: Final = 1.0  # seconds in which spare children start


@dataclass(frozen=True, slots=True)
class IdleFigures:
    """The worker's parent, its children and what starts them.

    ``share``: of one core, 0 to 1; ``memory``: bytes, of the sort ``memory_kind``.
    """

    processes: int
    seconds: float
    share: float
    memory: int
    memory_kind: str


def measure_idle(plan: Plan, progress: Progress) -> IdleFigures:
    """Watch a worker with two children doing nothing."""
    progress(f"idle: {plan.idle_seconds:g} s")
    with bench_server() as server, worker_peer(server, "bench.idle") as worker:
        time.sleep(_SETTLING)
        before, begin = _cpu(worker.pid), time.monotonic()
        time.sleep(plan.idle_seconds)
        used, elapsed = _cpu(worker.pid) - before, time.monotonic() - begin
        pids = family(worker.pid)
        return IdleFigures(len(pids), elapsed, used / elapsed, sum(map(memory, pids)), MEMORY)


def _cpu(pid: int) -> float:
    return sum(map(cpu_seconds, family(pid)))
