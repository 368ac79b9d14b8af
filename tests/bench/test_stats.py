"""The figures that the benchmark takes from samples."""

from __future__ import annotations

import pytest

from genro_nats.bench.stats import Run, best_makespan, held_back, idle_gaps, overlap, percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank_of_unordered_samples(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_few_and_of_none() -> None:
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_the_best_schedule_is_bound_by_the_work_and_by_the_longest_call() -> None:
    assert best_makespan([1.0] * 4, 2) == 2.0
    assert best_makespan([5.0, 1.0, 1.0], 2) == 5.0
    assert best_makespan([0.2] * 20 + [0.001] * 200, 2) == pytest.approx(2.1)


def test_idle_gaps_between_runs_in_any_order_that_may_overlap() -> None:
    runs = [Run(1, 4, 6, False), Run(1, 1, 3, False), Run(1, 2, 2.5, False), Run(1, 9, 12, False)]
    assert idle_gaps(runs, 0, 10) == [(0, 1), (3, 4), (6, 9)]
    assert idle_gaps(runs, 0, 8) == [(0, 1), (3, 4), (6, 8)]
    assert idle_gaps([], 0, 1) == [(0, 1)]
    assert idle_gaps([Run(1, -1, 5, True)], 0, 4) == []


def test_overlap() -> None:
    assert overlap((0, 2), (1, 5)) == 1
    assert overlap((0, 1), (2, 3)) == 0
    assert overlap((0, 9), (2, 3)) == 1


LONG_THEN_SHORT = [Run(1, 0, 0.2, True), Run(1, 0.2, 0.201, False)]


def test_a_short_call_behind_a_long_one_while_the_other_process_was_idle_is_held_back() -> None:
    other = [Run(2, 0, 0.05, True)]
    ((run, wait),) = held_back(LONG_THEN_SHORT + other, 0, 0.01, 2)
    assert run == LONG_THEN_SHORT[1]
    assert wait == pytest.approx(0.15)


def test_a_process_that_ran_nothing_was_idle() -> None:
    assert held_back(LONG_THEN_SHORT, 0, 0.01, 1) == []
    ((_, wait),) = held_back(LONG_THEN_SHORT, 0, 0.01, 2)
    assert wait == pytest.approx(0.2)


def test_no_call_is_held_back_while_all_processes_are_busy_or_within_the_tolerance() -> None:
    busy = [Run(2, 0, 0.1, True), Run(2, 0.105, 0.3, True)]
    assert held_back(LONG_THEN_SHORT + busy, 0, 0.01, 2) == []
    assert len(held_back(LONG_THEN_SHORT + busy, 0, 0.001, 2)) == 1


def test_calls_behind_short_ones_and_long_calls_are_never_held_back() -> None:
    runs = [Run(1, 0, 0.05, False), Run(1, 0.05, 0.1, False), Run(1, 0.1, 0.3, True), Run(1, 0.3, 0.5, True)]
    assert held_back(runs, 0, 0.01, 2) == []
