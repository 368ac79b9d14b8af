"""What durable tasks cost: the benchmark behind ``benchmarks/tasks.py`` and ``genro-nats bench tasks``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Final

from genro_nats.bench.functions import no_op
from genro_nats.bench.ground import bench_server, login, pool_options, task_floor_peer, worker_peer
from genro_nats.bench.limits import Verdict
from genro_nats.bench.machine import Machine
from genro_nats.bench.progress import Progress
from genro_nats.bench.report import show_verdicts
from genro_nats.bench.stats import median
from genro_nats.bench.table import show
from genro_nats.bench.task_queue import (
    IdleToRunning,
    QueueMemory,
    StoreFigures,
    WaitFigures,
    count_while_waiting,
    memory_of_queue,
    sample_task,
    time_storing,
    time_to_running,
)
from genro_nats.bench.task_turns import IN_FLIGHT, TaskSide, take_turns, warm_up
from genro_nats.executor.nats import NatsExecutor
from genro_nats.server import EmbeddedServer
from genro_nats.transport.task_floor import TaskFloor

__all__ = ["TaskFigures", "TaskPlan", "run_tasks", "task_verdicts"]

_SUBJECT: Final = "bench.tasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """Numbers of tasks and repetitions; durations are seconds."""

    rounds: int = 7
    one_by_one: int = 200
    in_flight: int = 4_000
    stored: int = 20_000
    queued: int = 20_000
    waited: int = 5_000
    waiting: float = 3.0
    runs: int = 100

    @classmethod
    def of(cls, *, quick: bool, rounds: int | None) -> TaskPlan:
        """The default run, or a short one whose figures only show that all works."""
        if not quick:
            return cls(rounds=rounds or 7)
        return cls(
            rounds=rounds or 1,
            one_by_one=50,
            in_flight=500,
            stored=1_000,
            queued=1_000,
            waited=500,
            waiting=0.2,
            runs=10,
        )


@dataclass(slots=True)
class TaskFigures:
    """All that was measured. ``task_size``: bytes of a no-op task, and of each one of the floor."""

    task_size: int
    floor: TaskSide
    ours: TaskSide
    storing: StoreFigures
    memory: QueueMemory
    memory_floor: QueueMemory
    waiting: WaitFigures
    running: IdleToRunning

    def ratio(self, figure: str) -> float:
        """Ours to the floor's: the median over the rounds of each round's ratio."""
        ours, floor = getattr(self.ours, figure), getattr(self.floor, figure)
        ratios: list[float] = [mine / bare for mine, bare in zip(ours, floor, strict=True)]
        return median(ratios)


def run_tasks(args: argparse.Namespace) -> int:
    """Measure and print; the exit code: 0, or with ``--check`` 1 when a limit is missed."""
    machine, plan = Machine.here(), TaskPlan.of(quick=args.quick, rounds=args.rounds)
    sys.stdout.write("\n".join([*machine.lines()[:2], _loops(machine)]) + "\n")
    begin, progress = perf_counter(), Progress()
    figures = asyncio.run(measure_tasks(plan, progress))
    progress.clear()
    found = task_verdicts(figures)
    _show(figures)
    show_verdicts(found)
    if args.quick:
        sys.stdout.write("\nA quick run shows that all works; its figures mean little.\n")
    sys.stdout.write(f"\n{perf_counter() - begin:.0f} s, load average now {os.getloadavg()[0]:.2f}\n")
    if args.json is not None:
        args.json.write_text(json.dumps(_as_json(machine, plan, figures, found), indent=2) + "\n")
    return int(args.check and not all(it.passed for it in found))


async def measure_tasks(plan: TaskPlan, progress: Progress) -> TaskFigures:
    """All figures.

    Raises:
        ExecutorError: tasks were lost, or something did not start.
        TimeoutError: a step took longer than it ever should.
    """
    progress("tasks: the memory of queued ones")
    memory, memory_floor = await memory_of_queue(plan.queued)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(bench_server(jetstream=True))
        floor = await TaskFloor.connect(**login(server))
        stack.push_async_callback(floor.aclose)
        data = await sample_task(server, floor, "bench.sample")
        bare, ours, pool = await _sides(stack, server, floor, data)
        for number in range(plan.rounds):
            progress(f"tasks: round {number + 1} of {plan.rounds}")
            await take_turns([bare, ours], plan.one_by_one, plan.in_flight)
        progress("tasks: from idle to running")
        running = await time_to_running(pool, plan.runs)
        progress("tasks: waiting")
        waiting = await count_while_waiting(server, plan.waited, plan.waiting)
        progress("tasks: storing many")
        storing = await time_storing(server, floor, data, plan.stored, plan.rounds)
        return TaskFigures(len(data), bare, ours, storing, memory, memory_floor, waiting, running)


async def _sides(
    stack: AsyncExitStack, server: EmbeddedServer, floor: TaskFloor, data: bytes
) -> tuple[TaskSide, TaskSide, NatsExecutor]:
    """The floor and the pool, each with its worker, warm."""
    pool = await stack.enter_async_context(NatsExecutor(_SUBJECT, **pool_options(server, _SUBJECT)))
    function = pool(no_op)

    async def call(value: bytes) -> object:
        return await (await function.enqueue(value)).result()

    def peers(worker: int) -> dict[str, int]:
        return {"worker": worker, "server": server.pid}

    # The pool's own workers on uvloop where that is installed; the floor is nats-py as it comes.
    bare_worker = stack.enter_context(task_floor_peer(server))
    worker = stack.enter_context(worker_peer(server, _SUBJECT))
    bare = TaskSide("bare nats-py", floor.call, data, data, peers(bare_worker.pid))
    ours = TaskSide("nats", call, b"x", b"x", peers(worker.pid))
    for side in (bare, ours):
        await warm_up(side)
    return bare, ours, pool


def task_verdicts(figures: TaskFigures) -> list[Verdict]:
    """A verdict for each limit."""
    floor, rate = "x bare nats-py", f"tasks/s, {IN_FLIGHT} in flight"
    memory, waiting = figures.memory, figures.waiting
    return [
        Verdict("enqueue to result, one at a time, p50", figures.ratio("p50"), 2.0, floor),
        Verdict(rate, figures.ratio("rate"), 0.45, floor, at_most=False),
        Verdict(rate, figures.ours.middle("rate"), 3_000, "tasks/s", at_most=False),
        Verdict(
            f"enqueue_many of {figures.storing.tasks:,}", figures.storing.ratio, 0.45, floor, at_most=False
        ),
        Verdict(f"{memory.tasks:,} queued tasks, memory added to the server", memory.added / 1e6, 60, "MB"),
        Verdict(f"messages sent while waiting for {waiting.tasks:,} results", waiting.sent, 0, "messages"),
        Verdict("idle to running, p50", figures.running.p50 * 1e3, 2.0, "ms"),
    ]


def _as_json(machine: Machine, plan: TaskPlan, figures: TaskFigures, found: list[Verdict]) -> dict[str, Any]:
    sides = {
        side.name: {name: getattr(side, name) for name in ("p50", "p99", "rate", "cpu")}
        for side in (figures.floor, figures.ours)
    }
    names = ("storing", "memory", "memory_floor", "waiting", "running")
    return {
        "machine": asdict(machine),
        "plan": asdict(plan),
        "task_size": figures.task_size,
        "sides": sides,
        **{name: asdict(getattr(figures, name)) for name in names},
        "limits": [{**asdict(it), "passed": it.passed} for it in found],
    }


# -- tables ---------------------------------------------------------------------


def _loops(machine: Machine) -> str:
    worker = "uvloop" if machine.uvloop else "asyncio's own loop"
    load = f"load average at the start {machine.load:.2f}"
    return f"{load}; the pool's worker runs on {worker}, caller and floor on asyncio's own"


def _show(figures: TaskFigures) -> None:
    sides = (figures.floor, figures.ours)
    rows = [["enqueue to result of a no-op", "p50 us", "p99 us", f"tasks/s, {IN_FLIGHT} in flight"]]
    for side in sides:
        p50, p99 = side.middle("p50") * 1e6, side.middle("p99") * 1e6
        rows.append([side.name, f"{p50:.0f}", f"{p99:.0f}", f"{side.middle('rate'):,.0f}"])
    rows.append(["ratio", *(f"{figures.ratio(figure):.2f}" for figure in ("p50", "p99", "rate"))])
    show("Tasks, each beside the floor: publish, pull, store the result, tell", rows)
    processes = ("caller", "worker", "children", "server")
    rows = [[f"processor us per task, {IN_FLIGHT} in flight", *processes, "together"]]
    for side in sides:
        used = [median(side.cpu[who]) * 1e6 for who in processes]
        rows.append([side.name, *(f"{figure:.0f}" for figure in (*used, sum(used)))])
    show("What takes the time", rows)
    _show_queue(figures)


def _show_queue(figures: TaskFigures) -> None:
    storing, memory, bare = figures.storing, figures.memory, figures.memory_floor
    rows = [[f"{storing.tasks:,} tasks of {figures.task_size} bytes", "tasks/s", "MB added to the server"]]
    for name, rate, added in (
        ("bare, pipelined", median(storing.floor), bare.added),
        ("enqueue_many", median(storing.ours), memory.added),
    ):
        rows.append([name, f"{rate:,.0f}", f"{added / 1e6:.1f}"])
    rows.append(["ratio", f"{storing.ratio:.2f}", f"{memory.added / max(1, bare.added):.2f}"])
    show("Stored, and not taken by anybody", rows)
    waiting, running = figures.waiting, figures.running
    rows = [["", "figure"]]
    rows.append([f"messages sent while waiting for {waiting.tasks:,} results", f"{waiting.sent}"])
    rows.append(["idle to running, p50 ms", f"{running.p50 * 1e3:.2f}"])
    rows.append(["idle to running, p99 ms", f"{running.p99 * 1e3:.2f}"])
    show("Waiting, and being run", rows)
