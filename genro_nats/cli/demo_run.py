"""One run of the demonstration's job on whatever pool the configuration gives."""

from __future__ import annotations

import asyncio
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from genro_nats.cli.demo_job import Measured, digest_of, measure
from genro_nats.errors import ExecutorError, WorkerLostError
from genro_nats.executor.function import Function
from genro_nats.executor.registry import ExecutorRegistry

__all__ = ["Lost", "Outcome", "library_root", "run_job", "standard_library"]

_FOREIGN: Final = frozenset({"site-packages", "dist-packages"})
_LANES: Final = 8  # calls in flight, per child
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Lost:
    """A call whose child died while it ran, and what the error said."""

    module: str
    pid: int | None
    error: str


@dataclass(slots=True)
class Outcome:
    """What one run came to. ``seconds`` is from the first call to the last reply."""

    kind: str = ""
    seconds: float = 0.0
    results: list[Measured] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """One hash over all results, whatever their order and wherever they were made."""
        return digest_of(result.facts for result in self.results)

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.results) / self.seconds if self.seconds else 0.0

    @property
    def places(self) -> Counter[tuple[str, int]]:
        """How many calls ran at each (host, pid)."""
        return Counter((result.host, result.pid) for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.kind,
            "calls": len(self.results),
            "seconds": round(self.seconds, 3),
            "calls_per_second": round(self.rate, 1),
            "digest": self.digest,
            "ran": [{"host": h, "pid": p, "calls": n} for (h, p), n in self.places.most_common()],
            "lost": [{"module": lost.module, "pid": lost.pid, "error": lost.error} for lost in self.lost],
        }


def library_root() -> Path:
    """Where the running Python's standard library is."""
    return Path(sysconfig.get_path("stdlib"))


def standard_library() -> list[tuple[str, bytes]]:
    """Every module of the running Python's standard library: its name and source."""
    root = library_root()
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not _FOREIGN.intersection(name.parts) and path.is_file():
            found.append((name.as_posix(), path.read_bytes()))
    if not found:
        raise ExecutorError(f"This Python has no source of its standard library in {root}.")
    return found


async def run_job(
    registry: ExecutorRegistry,
    modules: Sequence[tuple[str, bytes]],
    processes: int,
    told: Callable[[Outcome], object],
) -> Outcome:
    """Measure all modules; ``told`` hears of each result.

    This is the calling code: it doesn't know whether the pool is local or remote.
    """
    pool = registry.executor(name="demo", max_workers=processes)
    function, outcome, waiting = pool(measure), Outcome(pool.kind), iter(modules)
    async with pool:
        begin = time.perf_counter()
        lanes = [_lane(function, waiting, outcome, told) for _ in range(processes * _LANES)]
        await _together(lanes)
        outcome.seconds = time.perf_counter() - begin
    return outcome


async def _together(lanes: Sequence[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _lane(
    function: Function[[str, bytes], Measured],
    waiting: Iterator[tuple[str, bytes]],
    outcome: Outcome,
    told: Callable[[Outcome], object],
) -> None:
    for name, source in waiting:
        outcome.results.append(await _measured(function, name, source, outcome))
        told(outcome)


async def _measured(
    function: Function[[str, bytes], Measured], name: str, source: bytes, outcome: Outcome
) -> Measured:
    """One call. A call that died with its child is made again: measuring twice does no harm."""
    for _ in range(_ATTEMPTS):
        try:
            return await function(name, source)
        except WorkerLostError as error:
            outcome.lost.append(Lost(name, error.fields.get("pid"), str(error)))
    return await function(name, source)
