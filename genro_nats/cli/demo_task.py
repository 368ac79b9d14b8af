"""The demonstration's durable task: stored, begun, its child killed, and gone on with from its checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any, Final

from genro_nats.cli.demo_job import Survey, survey
from genro_nats.cli.demo_run import Outcome, library_root
from genro_nats.executor.registry import ExecutorRegistry
from genro_nats.tasks.status import TaskStatus

__all__ = ["TaskOutcome", "run_task", "surveyed"]

_MEASURED: Final = 350  # modules measured, or fewer ones several times: a second or two
_TIMEOUT: Final = 60.0  # seconds


@dataclass(slots=True)
class TaskOutcome:
    """What became of the task. ``resumed_at``: how many modules an attempt found measured, for each."""

    id: str
    state: str = ""
    attempts: int = 0
    killed_pid: int | None = None
    pids: Sequence[int] = ()
    resumed_at: Sequence[int] = ()
    digest: str = ""
    equal: bool = False

    @property
    def good(self) -> bool:
        """Killed once, gone on with where it was, and it came to what the first run came to."""
        return self.equal and self.killed_pid is not None and self.attempts == 2 and self.resumed_at[-1] > 0

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def surveyed(names: Sequence[str]) -> list[str]:
    """The modules of the task: enough work to be killed in the midst of it."""
    chosen = list(names[:_MEASURED])
    return chosen * -(-_MEASURED // len(chosen))


async def run_task(
    registry: ExecutorRegistry, expected: Outcome, names: Sequence[str], told: Callable[[TaskStatus], object]
) -> TaskOutcome:
    """Enqueue the survey, watch it, kill its child once, and wait for its result."""
    pool = registry.executor(name="demo")
    chosen = surveyed(names)
    async with pool:
        task = await pool(survey).enqueue(str(library_root()), chosen)
        outcome = TaskOutcome(task.id)
        async with aclosing(task.watch()) as statuses:
            async for status in statuses:
                told(status)
                _kill_once(status, outcome)
        result: Survey = await task.result(timeout=_TIMEOUT)
        status = await task.status()
    outcome.state, outcome.attempts = status.state.value, status.attempts
    outcome.pids, outcome.resumed_at = result.pids, result.resumed_at
    outcome.digest = result.digest
    of_first_run = Outcome(
        results=[measured for measured in expected.results if measured.name in set(chosen)]
    )
    outcome.equal = outcome.digest == of_first_run.digest
    return outcome


def _kill_once(status: TaskStatus, outcome: TaskOutcome) -> None:
    progress = status.progress
    if outcome.killed_pid is None and progress is not None and 0.3 <= progress.fraction < 1.0:
        outcome.killed_pid = progress.data
        os.kill(progress.data, signal.SIGKILL)
