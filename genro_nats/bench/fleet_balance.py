"""How evenly a fleet shares its calls: two workers of two children beside one worker of four.

The work sleeps, so that two processors suffice for four children. Both sides get
the same calls at the same times, in turns.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Any, Final

from genro_nats.bench.functions import long_sleep, medium_sleep, short_sleep
from genro_nats.bench.ground import bench_server, login
from genro_nats.bench.limits import Verdict
from genro_nats.bench.peer import Peer, has_uvloop
from genro_nats.bench.progress import Progress
from genro_nats.bench.stats import median, percentile
from genro_nats.executor.nats import NatsExecutor
from genro_nats.server import EmbeddedServer

__all__ = ["BalanceFigures", "BalancePlan", "balance_verdicts", "fleet_worker", "measure_balance", "mixed"]

SHORT: Final = 0.001  # seconds
MEDIUM: Final = 0.05
LONG: Final = 1.0
LOAD: Final = 0.8  # of what four children can do
_CHILDREN: Final = 4
_FUNCTIONS: Final = {SHORT: short_sleep, MEDIUM: medium_sleep, LONG: long_sleep}
_SHARES: Final = (0.90, 0.09, 0.01)  # of short, medium and long calls in the stream
_BURST_SHARES: Final = (0.60, 0.30, 0.10)
_SEED: Final = 7
_TIMEOUT: Final = 120.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePlan:
    """How much is measured; ``seconds``: of one stream of calls."""

    rounds: int = 5
    seconds: float = 15.0
    burst: int = 100
    bursts: int = 5

    @classmethod
    def of(cls, *, quick: bool, rounds: int | None) -> BalancePlan:
        """The default, or a short one whose figures only show that all works."""
        if quick:
            return cls(rounds=rounds or 1, seconds=2.0, burst=30, bursts=1)
        return cls(rounds=rounds or 5, bursts=rounds or 5)


@dataclass(slots=True)
class BalanceFigures:
    """Seconds, one figure per round: ``floor`` is one worker of four children, ``fleet`` two of two."""

    calls: int = 0
    floor: list[float] = field(default_factory=list)
    fleet: list[float] = field(default_factory=list)
    floor_burst: list[float] = field(default_factory=list)
    fleet_burst: list[float] = field(default_factory=list)
    floor_p99: float = inf
    fleet_p99: float = inf

    @property
    def p99_ratio(self) -> float:
        """The p99 of the short calls of all rounds, the fleet's to one worker's."""
        return self.fleet_p99 / self.floor_p99

    @property
    def burst_ratio(self) -> float:
        """The median over the bursts of each burst's ratio."""
        return median([mine / one for mine, one in zip(self.fleet_burst, self.floor_burst, strict=True)])


def fleet_worker(server: EmbeddedServer, subject: str, children: int) -> Peer:
    """A worker with so many children, not yet started."""
    options = {**login(server), "subject": subject, "max_workers": children}
    return Peer("genro_nats.bench.worker", {"options": options, "uvloop": has_uvloop()})


def measure_balance(plan: BalancePlan, progress: Progress) -> BalanceFigures:
    """The figures of a stream at load 0.8, and of bursts."""
    with bench_server() as server:
        return asyncio.run(_measure(server, plan, progress))


async def _measure(server: EmbeddedServer, plan: BalancePlan, progress: Progress) -> BalanceFigures:
    async with AsyncExitStack() as stack:
        progress("balance: starting three workers")
        pools: list[NatsExecutor] = []
        for subject, workers in (("bench.one", (4,)), ("bench.two", (2, 2))):
            for children in workers:
                stack.enter_context(fleet_worker(server, subject, children))
            pool = NatsExecutor(subject, **login(server), subject=subject)
            pools.append(await stack.enter_async_context(pool))
            await asyncio.gather(*(pool.submit(f, 0.0) for f in _FUNCTIONS.values() for _ in range(20)))
        figures = BalanceFigures()
        rng = random.Random(_SEED)
        await _streams(pools, plan, rng, figures, progress)
        await _bursts(pools, plan, rng, figures, progress)
        return figures


async def _streams(
    pools: list[NatsExecutor],
    plan: BalancePlan,
    rng: random.Random,
    figures: BalanceFigures,
    progress: Progress,
) -> None:
    short: list[list[float]] = [[], []]
    for number in range(plan.rounds):
        calls = _arrivals(rng, plan.seconds)
        figures.calls += len(calls)
        for side in (number % 2, 1 - number % 2):
            progress(f"balance: stream {number + 1} of {plan.rounds}, {('one worker', 'two workers')[side]}")
            taken = await _play(pools[side], calls)
            short[side] += taken
            (figures.fleet if side else figures.floor).append(percentile(taken, 0.99))
    figures.floor_p99, figures.fleet_p99 = (percentile(all_of, 0.99) for all_of in short)


async def _bursts(
    pools: list[NatsExecutor],
    plan: BalancePlan,
    rng: random.Random,
    figures: BalanceFigures,
    progress: Progress,
) -> None:
    for number in range(plan.bursts):
        progress(f"balance: burst {number + 1} of {plan.bursts}")
        durations = mixed(rng, plan.burst, _BURST_SHARES)
        for side in (number % 2, 1 - number % 2):
            begin = perf_counter()
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.gather(*(pools[side].submit(_FUNCTIONS[it], it) for it in durations))
            (figures.fleet_burst if side else figures.floor_burst).append(perf_counter() - begin)


def mixed(rng: random.Random, count: int, shares: tuple[float, float, float]) -> list[float]:
    """So many durations in these shares exactly, shuffled."""
    medium, long = round(count * shares[1]), round(count * shares[2])
    found = [SHORT] * (count - medium - long) + [MEDIUM] * medium + [LONG] * long
    rng.shuffle(found)
    return found


def _arrivals(rng: random.Random, seconds: float) -> list[tuple[float, float]]:
    """When which call is made: at random times, as many as keep four children busy for ``LOAD`` of the time."""
    mean = sum(share * it for share, it in zip(_SHARES, _FUNCTIONS, strict=True))
    count = round(LOAD * _CHILDREN * seconds / mean)
    times = sorted(rng.uniform(0, seconds) for _ in range(count))
    return list(zip(times, mixed(rng, count, _SHARES), strict=True))


async def _play(pool: NatsExecutor, calls: list[tuple[float, float]]) -> list[float]:
    """Make the calls at their times; seconds that each short one took."""
    taken: list[float] = []

    async def one(duration: float) -> None:
        begin = perf_counter()
        await pool.submit(_FUNCTIONS[duration], duration)
        if duration == SHORT:
            taken.append(perf_counter() - begin)

    running: list[asyncio.Task[Any]] = []
    begin = perf_counter()
    async with asyncio.timeout(_TIMEOUT):
        for at, duration in calls:
            if (wait := begin + at - perf_counter()) > 0:
                await asyncio.sleep(wait)
            running.append(asyncio.create_task(one(duration)))
        await asyncio.gather(*running)
    return taken


def balance_verdicts(figures: BalanceFigures) -> list[Verdict]:
    """A verdict for each limit."""
    return [
        Verdict("two workers: p99 of 1 ms calls, load 0.8", figures.p99_ratio, 1.5, "x one worker"),
        Verdict("two workers: makespan of a burst", figures.burst_ratio, 1.15, "x one worker"),
    ]
