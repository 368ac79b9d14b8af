"""What workers say of themselves, as cells of tables: sums, shares and short words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from genro_nats.cli.task_facts import one_line
from genro_nats.config.units import shown_size

__all__ = ["WORKER_COLUMNS", "cpu", "error_text", "lasting", "memory", "pool_sums", "total", "worker_row"]

Facts = Mapping[str, Any]
WORKER_COLUMNS: Final = (
    "worker", "host", "pid", "state", "pools", "busy", "queued", "tasks", "done", "failed",
    "cpu", "memory", "up", "version", "code", "last error",
)  # fmt: skip
_DAY: Final = 86400


def total(worker: Facts, key: str) -> int:
    """The sum of a figure over a worker's pools."""
    return sum(int(pool.get(key, 0)) for pool in worker["pools"])


def cpu(worker: Facts) -> float:
    """Processors that a worker and its children use: 1.0 is one."""
    return float(worker["cpu"] + sum(child.get("cpu", 0.0) for child in _children(worker)))


def memory(worker: Facts) -> int:
    """Resident bytes of a worker and its children; what they share is counted in each."""
    return int(worker["memory"] + sum(child.get("memory", 0) for child in _children(worker)))


def _children(worker: Facts) -> list[Facts]:
    return [child for pool in worker["pools"] for child in pool.get("children", ())]


def lasting(seconds: float) -> str:
    """A duration in its largest unit or two: ``"3d 4h"``."""
    whole = int(seconds)
    parts = [(whole // _DAY, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    told = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0s"


def error_text(worker: Facts) -> str:
    """The last thing that went wrong there."""
    errors = worker.get("errors") or []
    return one_line(f"{errors[-1].get('event', '')} {errors[-1].get('text', '')}") if errors else ""


def worker_row(worker: Facts) -> tuple[str, ...]:
    """One line of the table of workers."""
    tasks = sum(int(pool.get("tasks", {}).get("held", 0)) for pool in worker["pools"])
    return (
        one_line(worker["worker"]),
        one_line(worker["host"]),
        str(worker.get("pid", "")),
        one_line(worker["state"]),
        one_line(", ".join(str(pool.get("subject")) for pool in worker["pools"])),
        f"{total(worker, 'busy')}/{total(worker, 'slots')}",
        str(total(worker, "queued")),
        str(tasks),
        str(total(worker, "completed")),
        str(total(worker, "failed")),
        f"{cpu(worker):.0%}",
        shown_size(memory(worker)),
        lasting(worker["uptime"]),
        one_line(worker["version"]),
        one_line(worker["code"]) or "-",
        error_text(worker) or "-",
    )


def pool_sums(workers: Iterable[Facts]) -> dict[str, dict[str, Any]]:
    """Each pool's figures over all workers that serve it, by subject."""
    sums: dict[str, dict[str, Any]] = {}
    for worker in workers:
        for pool in worker["pools"]:
            found = sums.setdefault(str(pool.get("subject")), empty_pool())
            found["workers"] += 1
            found["draining"] += worker["state"] == "draining"
            for key in ("slots", "busy", "queued", "calls", "completed", "failed", "seconds"):
                found[key] += pool.get(key, 0)
            found["tasks_held"] += int(pool.get("tasks", {}).get("held", 0))
    return dict(sorted(sums.items()))


def empty_pool() -> dict[str, Any]:
    """The figures of a pool that nobody serves."""
    names = ("workers", "draining", "slots", "busy", "queued", "calls", "completed", "failed", "tasks_held")
    return {**dict.fromkeys(names, 0), "seconds": 0.0}
