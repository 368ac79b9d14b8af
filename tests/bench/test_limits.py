"""Limits: each is judged on its own figure, in its own direction."""

from __future__ import annotations

import dataclasses

import pytest

from genro_nats.bench.calls import SystemFigures
from genro_nats.bench.idle import IdleFigures
from genro_nats.bench.importing import ImportFigures
from genro_nats.bench.inflight import InflightFigures
from genro_nats.bench.limits import Results, Verdict, verdicts
from genro_nats.bench.run import exit_code
from genro_nats.bench.schedule import ScheduleFigures
from genro_nats.bench.systems import FLOOR, NATS, PROCESS, STDLIB
from genro_nats.bench.table import aligned


def figures(name: str, p50: float, rate: float, big: float) -> SystemFigures:
    # The medians are what counts: the first and last round are far off.
    return SystemFigures(name, 100, [9, p50, 0], [1, 1, 1], [0, rate, 1e9], [0, big, 9])


def good() -> Results:
    return Results(
        calls=[
            figures(FLOOR, 0.1, 100, 1),
            figures(STDLIB, 0.2, 20, 1),
            figures(PROCESS, 0.2, 40, 1),
            figures(NATS, 0.139, 56, 1.5),
        ],
        inflight=InflightFigures(10_000, 10_000, 0, 30_000_000, 90_000_000, 1.0),
        schedule=[ScheduleFigures("nats", 2, [9.0, 2.4, 2.2], 2.1, 0, 0.0)],
        imports=ImportFigures(0.01, 0.12, 0.1, 0.1),
        idle=IdleFigures(5, 10.0, 0.0099, 1, "PSS"),
    )


def missed(results: Results) -> list[str]:
    return [f"{it.what} {it.unit}" for it in verdicts(results) if not it.passed]


def test_every_limit_is_judged_and_kept() -> None:
    found = verdicts(good())
    assert len(found) == 13
    assert missed(good()) == []
    assert verdicts(Results()) == []


@pytest.mark.parametrize(
    ("system", "worse", "what"),
    [
        (NATS, (0.15, 56, 1), ["nats: one at a time, p50 x nats-py echo"]),
        (NATS, (0.1, 50, 1), ["nats: calls/s, 100 in flight x nats-py echo"]),
        (NATS, (0.1, 56, 1.6), ["nats: 8 MiB echo x nats-py echo"]),
        (PROCESS, (0.2, 39, 1), ["process: calls/s, 100 in flight x ProcessPoolExecutor"]),
        (PROCESS, (0.21, 40, 1), ["process: one at a time, p50 x ProcessPoolExecutor"]),
    ],
)
def test_a_slow_system_misses_its_limit(
    system: str, worse: tuple[float, float, float], what: list[str]
) -> None:
    results = good()
    assert results.calls is not None
    results.calls = [figures(system, *worse) if it.name == system else it for it in results.calls]
    assert missed(results) == what


def test_the_other_scenarios_miss_theirs() -> None:
    results = good()
    assert results.inflight is not None
    assert results.schedule is not None
    results.inflight = dataclasses.replace(results.inflight, lost=1, peak=90_000_001, outstanding=9_999)
    results.schedule = [dataclasses.replace(results.schedule[0], makespans=[2.5], held_back=1)]
    results.imports = ImportFigures(0.01, 0.121, 0.1, 0.1)
    results.idle = IdleFigures(5, 10.0, 0.011, 1, "PSS")
    assert len(missed(results)) == 7


def test_limits_include_their_bound() -> None:
    assert Verdict("x", 1.0, 1.0, "").passed
    assert Verdict("x", 1.0, 1.0, "", at_most=False).passed


def test_only_a_check_tells_a_missed_limit_by_its_exit_code() -> None:
    kept, broken = Verdict("x", 1, 2, ""), Verdict("x", 3, 2, "")
    assert exit_code([kept, broken], check=True) == 1
    assert exit_code([kept, broken], check=False) == 0
    assert exit_code([kept], check=True) == 0


def test_tables_are_aligned() -> None:
    assert aligned([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc   d"
