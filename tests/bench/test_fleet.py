"""The benchmark of a fleet, tiny: it measures both sides, and counts what a rolling restart costs."""

from __future__ import annotations

import random

from genro_nats.bench.fleet_balance import (
    LONG,
    MEDIUM,
    SHORT,
    BalanceFigures,
    BalancePlan,
    balance_verdicts,
    measure_balance,
    mixed,
)
from genro_nats.bench.fleet_restart import RestartFigures, RestartPlan, measure_restart, restart_verdicts
from genro_nats.bench.progress import Progress


def test_balance() -> None:
    figures = measure_balance(BalancePlan(rounds=1, seconds=0.5, burst=10, bursts=1), Progress())
    assert figures.calls == 104
    for found in (figures.floor, figures.fleet, figures.floor_burst, figures.fleet_burst):
        assert len(found) == 1
        assert SHORT <= found[0] < 30
    assert figures.floor_burst[0] >= LONG
    assert (figures.floor_p99, figures.fleet_p99) == (figures.floor[0], figures.fleet[0])


def test_a_rolling_restart() -> None:
    plan = RestartPlan(workers=2, children=1, rate=100, tasks=20, turns=1)
    figures = measure_restart(plan, Progress())
    assert (figures.replaced, figures.failed, figures.lost, figures.errors) == (2, 0, 0, [])
    assert figures.calls > 0.5 * figures.seconds * plan.rate
    assert figures.tasks > 0


def test_what_is_judged() -> None:
    good = BalanceFigures(
        10, floor_burst=[1.0, 2.0, 1.0], fleet_burst=[1.1, 2.2, 9.0], floor_p99=1, fleet_p99=1.5
    )
    assert all(it.passed for it in balance_verdicts(good))
    good.fleet_p99, good.fleet_burst[0] = 1.51, 1.2
    assert not any(it.passed for it in balance_verdicts(good))
    restart = RestartFigures(replaced=6, seconds=10.0, calls=5_000, tasks=500)
    assert all(it.passed for it in restart_verdicts(restart))
    restart.failed, restart.lost, restart.calls = 1, 1, 100
    assert not any(it.passed for it in restart_verdicts(restart))


def test_the_mix_is_exact() -> None:
    found = mixed(random.Random(1), 100, (0.6, 0.3, 0.1))
    assert sorted(found) == [SHORT] * 60 + [MEDIUM] * 30 + [LONG] * 10
