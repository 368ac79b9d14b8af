"""A worker's memory, processor and start are within what is promised, and the benchmark says so."""

from __future__ import annotations

import dataclasses
from typing import Any

from genro_nats.bench.fleet_life import LifeFigures, LifePlan, life_verdicts, measure_life
from genro_nats.bench.progress import Progress


def test_a_worker_with_two_idle_children_is_small_quiet_and_soon_ready() -> None:
    figures = measure_life(LifePlan(starts=2, rounds=1, seconds=0.5), Progress())
    assert figures.processes == 5  # parent, template, two children, a spare
    assert figures.memory_kind != "PSS" or 20e6 < figures.memory < 110e6
    # Promised is 1.5 s and 1 % on a machine with nothing else to do.
    assert 0 < min(figures.ready) < 1.5 * 3
    assert figures.share < 0.03
    assert len(figures.plain) == len(figures.recycled) == len(figures.renewed) == 1


def test_each_limit_is_judged_on_its_own() -> None:
    good = LifeFigures(ready=[9.0, 1.4, 0.1], processes=5, memory=109_000_000, share=0.009)
    assert all(verdict.passed for verdict in life_verdicts(good))
    wrong: tuple[tuple[str, Any], ...] = (
        ("ready", [1.6, 1.6, 0.1]),
        ("memory", 111_000_000),
        ("share", 0.011),
    )
    for name, bad in wrong:
        found = [v for v in life_verdicts(dataclasses.replace(good, **{name: bad})) if not v.passed]
        assert len(found) == 1, name
