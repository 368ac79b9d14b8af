"""A thousand tasks under a random killer. Alone: ``pytest -m storm``; ``STORM_SECONDS`` says how long (60)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults import task_jobs
from tests.faults.conftest import Notes, Worker
from tests.faults.durable import TaskFleet

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(180)]

TASKS = 1000
SECONDS = float(os.environ.get("STORM_SECONDS", "60"))


def offspring(pid: int) -> list[int]:
    """The children of a worker: what its template forked."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.name))
    return [child for template in parents.get(pid, []) for child in parents.get(template, [])]


class Killer:
    """Kills children and workers, and the broker once."""

    def __init__(self, tasks: TaskFleet, draw: random.Random) -> None:
        self._tasks = tasks
        self._draw = draw
        self.killed: Counter[str] = Counter()

    @property
    def workers(self) -> list[Worker]:
        return [worker for worker in self._tasks.workers if worker.process.poll() is None]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while loop.time() - begin < SECONDS:
            await asyncio.sleep(self._draw.uniform(0.5, 1.5))
            late = loop.time() - begin > SECONDS / 2
            if late and not self.killed["broker"]:
                await self._broker()
            elif self._draw.random() < 0.25:
                await self._worker()
            else:
                self._child()

    def _child(self) -> None:
        children = [pid for worker in self.workers for pid in offspring(worker.process.pid)]
        if children:
            with suppress(ProcessLookupError):
                os.kill(self._draw.choice(children), signal.SIGKILL)
                self.killed["child"] += 1

    async def _worker(self) -> None:
        worker = self._draw.choice(self.workers)
        worker.signal(signal.SIGKILL)
        await worker.ended()
        self.killed["worker"] += 1
        await self._tasks.worker()

    async def _broker(self) -> None:
        self._tasks.server.kill()
        self.killed["broker"] += 1
        await asyncio.sleep(0.5)  # an outage of some length
        await asyncio.to_thread(self._tasks.server.restart)


async def test_a_thousand_tasks_under_a_random_killer(tasks: TaskFleet, notes: Notes) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(2):
        await tasks.worker()
    pool = tasks.caller()
    killer = Killer(tasks, draw)
    async with tasks.ledger() as ledger:
        killing = asyncio.create_task(killer.run())
        waiting = []
        ids = []
        pause = SECONDS / TASKS * 0.9
        for n in range(TASKS):
            seconds = draw.choice((0.0, 0.0, 0.01, 0.05, 0.2, 0.5 if n % 10 == 0 else 0.0))
            task = await pool.enqueue(task_jobs.work, notes.path, n, seconds)
            ids.append(task.id)
            waiting.append(asyncio.ensure_future(task.result(timeout=SECONDS + 60)))
            await asyncio.sleep(pause)
        await killing
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert results == list(range(TASKS))
        assert await ledger.check(ids, 20) == {"completed": TASKS}
        assert len(notes.counts()) == TASKS
        reruns = len(notes.lines()) - TASKS
        print(f"killed {dict(killer.killed)}, {reruns} reruns")
        assert min(killer.killed[kind] for kind in ("broker", "worker", "child")) > 0
