"""What a worker takes that nobody calls, how soon it is ready, and what recycling its children costs.

The worker is started as users start it, by the command, with two children and a warm spare.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from genro_nats.bench.functions import short_sleep
from genro_nats.bench.ground import bench_server
from genro_nats.bench.limits import Verdict
from genro_nats.bench.plan import CHILDREN
from genro_nats.bench.processes import MEMORY, cpu_seconds, family, memory
from genro_nats.bench.progress import Progress
from genro_nats.bench.stats import median, percentile
from genro_nats.bench.table import show
from genro_nats.errors import ExecutorError
from genro_nats.executor.process import ProcessExecutor
from genro_nats.server import EmbeddedServer

__all__ = ["LifeFigures", "LifePlan", "life_verdicts", "measure_life", "show_life", "started_worker"]

_SETTLING: Final = 2.0  # seconds in which spares start
_PATIENCE: Final = 60.0  # seconds for a worker to be ready
_WORK: Final = 0.002  # seconds of each call
_RECYCLED: Final = 50  # calls of a child's life
_RENEWALS: Final = 0.5  # seconds between two rolling restarts
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LifePlan:
    """How much is measured; ``seconds``: of one turn of calls, and of idling."""

    starts: int = 7
    rounds: int = 5
    seconds: float = 5.0

    @classmethod
    def of(cls, *, quick: bool, rounds: int | None) -> LifePlan:
        """The default, or a short one whose figures only show that all works."""
        if quick:
            return cls(starts=2, rounds=rounds or 1, seconds=1.0)
        return cls(rounds=rounds or 5)


@dataclass(slots=True)
class LifeFigures:
    """``ready``: seconds of each start. ``memory``: bytes of all processes, of the sort ``memory_kind``.

    ``share``: of one core. ``plain``, ``recycled``, ``renewed``: p99 of calls in seconds, one per
    round: children that stay, that are replaced after 50 calls, and in a rolling restart twice a second.
    """

    ready: list[float] = field(default_factory=list)
    processes: int = 0
    memory: int = 0
    memory_kind: str = MEMORY
    share: float = 0.0
    plain: list[float] = field(default_factory=list)
    recycled: list[float] = field(default_factory=list)
    renewed: list[float] = field(default_factory=list)


@contextmanager
def started_worker(server: EmbeddedServer, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """A worker of two children, ready; and the seconds that it took to be."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GENRO_", "NATS_"))}
    command = ["-m", "genro_nats.cli.main", "worker", "--subject", "bench.life", "--processes", str(CHILDREN)]
    begin = perf_counter()
    worker = subprocess.Popen(
        [sys.executable, *command, "--url", server.url, "--user", server.user, *arguments],
        env={
            **own,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "GENRO_NATS_PASSWORD": server.password,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield worker, _until_ready(worker, begin)
    finally:
        worker.kill()
        worker.communicate(timeout=10)


def _until_ready(worker: subprocess.Popen[str], begin: float) -> float:
    assert worker.stderr is not None
    seen = []
    for line in worker.stderr:
        seen.append(line)
        if "worker.ready" in line:
            return perf_counter() - begin
        if perf_counter() - begin > _PATIENCE:
            break
    raise ExecutorError(f"The worker was not ready: {''.join(seen)}")


def measure_life(plan: LifePlan, progress: Progress) -> LifeFigures:
    """All figures."""
    figures = LifeFigures()
    with bench_server(jetstream=True) as server:
        for number in range(plan.starts):
            progress(f"life: start {number + 1} of {plan.starts}")
            with started_worker(server) as (_, seconds):
                figures.ready.append(seconds)
        progress("life: idle")
        with started_worker(server) as (worker, _):
            time.sleep(_SETTLING)
            pids = family(worker.pid)
            before, begin = sum(map(cpu_seconds, pids)), time.monotonic()
            time.sleep(max(2.0, plan.seconds))
            elapsed = time.monotonic() - begin
            figures.processes, figures.memory = len(pids), sum(map(memory, pids))
            figures.share = (sum(map(cpu_seconds, pids)) - before) / elapsed
    asyncio.run(_measure_calls(plan, progress, figures))
    return figures


async def _measure_calls(plan: LifePlan, progress: Progress, figures: LifeFigures) -> None:
    # Preloaded, as a deployment does: else each new child imports the module in its first call.
    options: Any = {"max_workers": CHILDREN, "imports": (short_sleep.__module__,)}
    async with (
        ProcessExecutor("plain", **options) as plain,
        ProcessExecutor("recycled", **options, max_tasks_per_child=_RECYCLED) as recycled,
        ProcessExecutor("renewed", **options) as renewed,
    ):
        for number in range(plan.rounds):
            progress(f"life: round {number + 1} of {plan.rounds}")
            figures.plain.append(await _p99(plain, plan.seconds))
            figures.recycled.append(await _p99(recycled, plan.seconds))
            renewing = asyncio.ensure_future(_renew(renewed))
            figures.renewed.append(await _p99(renewed, plan.seconds))
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)


async def _p99(pool: ProcessExecutor, seconds: float) -> float:
    """Of calls that keep all children busy."""
    times: list[float] = []
    end = perf_counter() + seconds

    async def lane() -> None:
        while (begin := perf_counter()) < end:
            await pool.submit(short_sleep, _WORK)
            times.append(perf_counter() - begin)

    await pool.submit(short_sleep, _WORK)
    await asyncio.gather(*(lane() for _ in range(CHILDREN)))
    return percentile(times, 0.99)


async def _renew(pool: Any) -> None:
    while True:
        await asyncio.sleep(_RENEWALS)
        await pool._home.engine._pool.renew()


def life_verdicts(figures: LifeFigures) -> list[Verdict]:
    """A verdict for each limit."""
    return [
        Verdict(
            "worker with 2 idle children, memory", figures.memory / _MB, 110, f"MB {figures.memory_kind}"
        ),
        Verdict("worker with 2 idle children, processor", figures.share * 100, 1, "% of a core"),
        Verdict("worker, from its start to ready", median(figures.ready), 1.5, "s"),
    ]


def show_life(figures: LifeFigures) -> None:
    """Tables."""
    rows = [["a worker with 2 children", "figure"]]
    rows.append(["ready after, s (median)", f"{median(figures.ready):.2f}"])
    rows.append(["processes", f"{figures.processes}"])
    rows.append([f"memory of all, MB {figures.memory_kind}", f"{figures.memory / _MB:.1f}"])
    rows.append(["processor when idle, % of a core", f"{figures.share * 100:.2f}"])
    show("Started, and left alone", rows)
    rows = [["p99 of 2 ms calls, ms", *(str(n + 1) for n in range(len(figures.plain))), "ratio"]]
    base = median(figures.plain)
    for name, times in (
        ("children that stay", figures.plain),
        (f"replaced after {_RECYCLED} calls", figures.recycled),
        ("rolling restart twice a second", figures.renewed),
    ):
        rows.append([name, *(f"{s * 1e3:.2f}" for s in times), f"{median(times) / base:.2f}"])
    show("Recycling", rows)
