"""Retries and deaths, decided."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats.errors import CallTimeoutError, ConfigurationError
from genro_nats.tasks.retry import (
    MAX_DELAY,
    MAX_MISSES,
    GiveUp,
    RetryAfter,
    RetryPolicy,
    after_death,
    after_failure,
    after_miss,
    type_names,
)

KEY = type_names(KeyError)


def test_the_names_of_a_class_and_its_bases() -> None:
    assert type_names(CallTimeoutError)[0] == "genro_nats.errors:CallTimeoutError"
    assert {"builtins:TimeoutError", "builtins:OSError", "builtins:Exception"} <= set(
        type_names(CallTimeoutError)
    )


def test_the_count() -> None:
    policy = RetryPolicy(retries=2)
    outcomes = [after_failure(policy, attempt, KEY, draw=1.0) for attempt in (1, 2, 3)]
    assert outcomes == [RetryAfter(1.0), RetryAfter(2.0), GiveUp("failed after 3 attempts")]
    assert after_failure(RetryPolicy(), 1, KEY, draw=0.5) == GiveUp("failed after 1 attempt")


def test_exponential_up_to_a_limit() -> None:
    policy = RetryPolicy(retries=9, backoff=0.5, factor=3.0, max_backoff=10.0)
    assert [policy.ceiling(n) for n in range(1, 6)] == [0.5, 1.5, 4.5, 10.0, 10.0]
    assert policy.ceiling(10**9) == 10.0
    assert RetryPolicy(backoff=0.0).ceiling(10**9) == 0.0


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1e9), st.floats(1, 1e9), st.floats(0, 1e9))
def test_full_jitter_stays_in_bounds(
    attempt: int, draw: float, backoff: float, factor: float, top: float
) -> None:
    policy = RetryPolicy(10**6, backoff, factor, top)
    outcome = after_failure(policy, attempt, KEY, draw=draw)
    assert isinstance(outcome, RetryAfter)
    assert 0 <= outcome.delay <= policy.ceiling(attempt) <= top
    assert after_failure(policy, attempt, KEY, draw=0.0) == RetryAfter(0.0)


NAMES = ["builtins:KeyError", "builtins:LookupError", "builtins:OSError"]


@pytest.mark.parametrize(("on", "off"), list(product([None, *NAMES], repeat=2)))
def test_filters_know_subclasses_and_giving_up_wins(on: str | None, off: str | None) -> None:
    policy = RetryPolicy(1, retry_on=(on,) if on else (), give_up_on=(off,) if off else ())
    outcome = after_failure(policy, 1, KEY, draw=1.0)
    tried = (on is None or on in KEY) and off not in KEY
    assert isinstance(outcome, RetryAfter) is tried
    if off in KEY:
        assert outcome == GiveUp(f"{off} is not tried again (give_up_on)")


def test_the_function_asks_for_a_retry() -> None:
    policy = RetryPolicy(1, give_up_on=("builtins:Exception",))
    assert after_failure(policy, 1, KEY, draw=0.3, asked=42.0) == RetryAfter(42.0)
    assert after_failure(policy, 1, KEY, draw=0.3, asked=-1.0) == RetryAfter(0.0)
    assert after_failure(policy, 2, KEY, draw=0.3, asked=42.0) == GiveUp("failed after 2 attempts")


def test_deaths_are_counted_apart() -> None:
    assert [after_death(n) for n in (1, 2)] == [RetryAfter(0.0)] * 2
    for deaths in (3, 4):
        assert after_death(deaths) == GiveUp(f"its child or worker died {deaths} times while it ran")


@pytest.mark.parametrize(
    "wrong",
    [{"retries": -1}, {"backoff": -1.0}, {"max_backoff": math.inf}, {"backoff": math.nan}, {"factor": 0.5}],
)
def test_wrong_policies(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_a_missing_function_is_waited_for_some_minutes() -> None:
    for draw, least, most in ((0.0, 120, 200), (1.0, 240, 400)):
        waits = [after_miss(misses, draw=draw) for misses in range(1, MAX_MISSES)]
        seconds = [wait.delay for wait in waits if isinstance(wait, RetryAfter)]
        assert len(seconds) == len(waits)
        assert seconds == sorted(seconds)
        assert seconds[0] <= 0.1
        assert seconds[-1] <= 2.0
        assert least < sum(seconds) < most
    for misses in (MAX_MISSES, MAX_MISSES + 1, 10**6):
        assert isinstance(after_miss(misses, draw=1.0), GiveUp)


def test_no_wait_is_longer_than_a_server_can_count() -> None:
    policy = RetryPolicy(retries=9, backoff=1e30, max_backoff=1e30)
    assert after_failure(policy, 1, KEY, draw=1.0) == RetryAfter(MAX_DELAY)
    assert after_failure(policy, 1, KEY, draw=1.0, asked=math.inf) == RetryAfter(MAX_DELAY)
    assert after_failure(policy, 1, KEY, draw=1.0, asked=math.nan) == RetryAfter(0.0)
