"""Scenario ``import``: what ``import genro_nats`` adds to the start of Python."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from genro_nats.bench.peer import import_environment
from genro_nats.bench.plan import Plan
from genro_nats.bench.progress import Progress
from genro_nats.bench.stats import median

__all__ = ["ImportFigures", "measure_import"]

_STATEMENTS: Final = {
    "bare": "pass",
    "package": "import genro_nats",
    "process": "from genro_nats import ProcessExecutor",
    "nats": "from genro_nats import NatsExecutor; import genro_nats.executor.nats_engine",
}


@dataclass(frozen=True, slots=True)
class ImportFigures:
    """Seconds over the start of a bare Python (itself in ``bare``), medians.

    ``package``: ``import genro_nats``; ``process``, ``nats``: with all that a pool of that kind needs.
    """

    bare: float
    package: float
    process: float
    nats: float


def measure_import(plan: Plan, progress: Progress) -> ImportFigures:
    """Start Pythons in turns."""
    progress("import")
    times: dict[str, list[float]] = {name: [] for name in _STATEMENTS}
    for turn in range(plan.imports + 1):
        for name, statement in _STATEMENTS.items():
            begin = perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, env=import_environment())
            if turn:  # the first one may have to compile, and reads from disk
                times[name].append(perf_counter() - begin)
    medians = {name: median(found) for name, found in times.items()}
    bare = medians.pop("bare")
    return ImportFigures(bare, **{name: found - bare for name, found in medians.items()})
