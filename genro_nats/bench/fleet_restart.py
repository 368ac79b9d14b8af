"""A fleet whose workers are replaced one after the other, under calls and durable tasks: what fails, what is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from genro_nats.bench.fleet_balance import fleet_worker
from genro_nats.bench.functions import no_op, short_sleep
from genro_nats.bench.ground import bench_server, login
from genro_nats.bench.limits import Verdict
from genro_nats.bench.progress import Progress
from genro_nats.bench.stats import percentile
from genro_nats.errors import ExecutorError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.server import EmbeddedServer
from genro_nats.tasks.handle import TaskHandle

__all__ = ["RestartFigures", "RestartPlan", "measure_restart", "restart_verdicts"]

_SUBJECT: Final = "bench.restart"
_WORK: Final = 0.002  # seconds of each call
_TIMEOUT: Final = 60.0  # seconds
_WAKING: Final = 10.0  # seconds
_QUICK: Final = 0.03  # seconds for twenty calls
_TOLD: Final = 5  # errors that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPlan:
    """``rate``: calls a second; ``tasks``: stored a second; ``turns``: how often all workers are replaced."""

    workers: int = 3
    children: int = 2
    rate: int = 500
    tasks: int = 50
    turns: int = 2

    @classmethod
    def of(cls, *, quick: bool) -> RestartPlan:
        """The default, or a short one."""
        return cls(workers=2, turns=1) if quick else cls()


@dataclass(slots=True)
class RestartFigures:
    """What became of the calls and tasks of the whole time."""

    replaced: int = 0
    seconds: float = 0.0
    calls: int = 0
    failed: int = 0
    tasks: int = 0
    lost: int = 0
    p99: float = 0.0
    errors: list[str] = field(default_factory=list)


def measure_restart(plan: RestartPlan, progress: Progress) -> RestartFigures:
    """Replace all workers in turn, and count."""
    with bench_server(jetstream=True) as server:
        return asyncio.run(_measure(server, plan, progress))


async def _measure(server: EmbeddedServer, plan: RestartPlan, progress: Progress) -> RestartFigures:
    figures = RestartFigures()
    async with AsyncExitStack() as stack:
        fleet = [_Post(stack.enter_context(ExitStack()), server, plan.children) for _ in range(plan.workers)]
        progress(f"restart: starting {plan.workers} workers")
        for post in fleet:
            await post.fill()
        pool = await stack.enter_async_context(
            NatsExecutor("bench-restart", **login(server), subject=_SUBJECT, timeout=_TIMEOUT)
        )
        await _awake(pool)
        stopping = asyncio.Event()
        load = [asyncio.create_task(_calls(pool, plan.rate, stopping, figures))]
        load.append(asyncio.create_task(_tasks(pool, plan.tasks, stopping, figures)))
        begin = perf_counter()
        for turn in range(plan.turns):
            for number, post in enumerate(fleet):
                progress(f"restart: turn {turn + 1} of {plan.turns}, worker {number + 1}")
                await post.empty()
                await post.fill()
                figures.replaced += 1
        stopping.set()
        figures.seconds = perf_counter() - begin
        await asyncio.gather(*load)
    return figures


class _Post:
    """A place in the fleet: its worker leaves, and another one comes."""

    def __init__(self, stack: ExitStack, server: EmbeddedServer, children: int) -> None:
        self._stack = stack
        self._server = server
        self._children = children

    async def fill(self) -> None:
        peer = fleet_worker(self._server, _SUBJECT, self._children)
        await asyncio.to_thread(self._stack.enter_context, peer)

    async def empty(self) -> None:
        """Let the worker drain, and wait for its end."""
        await asyncio.to_thread(self._stack.close)


async def _awake(pool: NatsExecutor) -> None:
    """Wait until calls are as quick as they should be: starting workers keep a small machine busy."""
    begin = perf_counter()
    while perf_counter() - begin < _WAKING:
        at = perf_counter()
        await asyncio.gather(*(pool.submit(short_sleep, 0.0) for _ in range(20)))
        if perf_counter() - at < _QUICK:
            return


async def _calls(pool: NatsExecutor, rate: int, stopping: asyncio.Event, figures: RestartFigures) -> None:
    taken: list[float] = []

    async def one() -> None:
        begin = perf_counter()
        try:
            await pool.submit(short_sleep, _WORK)
        except ExecutorError as error:
            figures.failed += 1
            figures.errors = [*figures.errors, f"{type(error).__name__}: {error}"][:_TOLD]
        else:
            taken.append(perf_counter() - begin)

    running = await _steadily(rate, stopping, one)
    await asyncio.gather(*running)
    figures.calls = len(running)
    figures.p99 = percentile(taken, 0.99)


async def _tasks(pool: NatsExecutor, rate: int, stopping: asyncio.Event, figures: RestartFigures) -> None:
    async def one() -> TaskHandle[Any]:
        return await pool.enqueue(no_op, b"task")

    handles = await asyncio.gather(*await _steadily(rate, stopping, one))
    figures.tasks = len(handles)
    for handle in handles:
        try:
            await handle.result(timeout=_TIMEOUT)
        except ExecutorError as error:
            figures.lost += 1
            figures.errors = [*figures.errors, f"{type(error).__name__}: {error}"][:_TOLD]


async def _steadily(rate: int, stopping: asyncio.Event, make: Any) -> list[asyncio.Task[Any]]:
    """Begin so many a second, whatever becomes of them."""
    begun: list[asyncio.Task[Any]] = []
    begin = perf_counter()
    while not stopping.is_set():
        due = int((perf_counter() - begin) * rate) - len(begun)
        begun += [asyncio.create_task(make()) for _ in range(due)]
        await asyncio.sleep(0.002)
    return begun


def restart_verdicts(figures: RestartFigures) -> list[Verdict]:
    """A verdict for each limit."""
    rate = figures.calls / figures.seconds if figures.seconds else 0.0
    return [
        Verdict("rolling restart: failed calls", figures.failed, 0, f"of {figures.calls:,}"),
        Verdict("rolling restart: lost tasks", figures.lost, 0, f"of {figures.tasks:,}"),
        Verdict("rolling restart: calls", rate, 475, "a second", at_most=False),
    ]
