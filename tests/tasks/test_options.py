"""Options of a task: what is accepted, and what the errors name."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from genro_nats.errors import ConfigurationError
from genro_nats.tasks.options import MAX_ID, Priority, TaskOptions


@pytest.mark.parametrize(
    "stated",
    [
        {"delay": 0},
        {"delay": 3.5},
        {"at": 1_800_000_000},
        {"at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"priority": "high"},
        {"priority": Priority.LOW},
        {"key": "k" * MAX_ID, "id": "ü" * (MAX_ID // 2)},
        {"expires": 0.001},
        {"retries": 0, "backoff": 0, "backoff_factor": 1, "max_backoff": 0},
        {"retry_on": ValueError, "give_up_on": (KeyError, "mod:Class")},
        {"retry_on": [ValueError]},
        {"result_ttl": 1, "keep_result": False, "by_value": True},
    ],
)
def test_accepted(stated: dict[str, Any]) -> None:
    assert TaskOptions(**stated) == TaskOptions().with_stated(stated)


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": math.nan}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": "1"}, "delay"),
        ({"delay": 1, "at": 1}, "delay= and at="),
        ({"at": datetime(2030, 1, 1)}, "time zone"),
        ({"priority": "urgent"}, "priority='urgent'"),
        ({"key": ""}, "key"),
        ({"key": "k" * (MAX_ID + 1)}, "key"),
        ({"id": "ü" * MAX_ID}, "id"),
        ({"id": 7}, "id"),
        ({"expires": 0}, "expires"),
        ({"retries": -1}, "retries"),
        ({"backoff": -1}, "backoff"),
        ({"backoff": math.inf}, "backoff"),
        ({"backoff_factor": 0.5}, "factor"),
        ({"retry_on": "ValueError"}, "retry_on"),
        ({"retry_on": int}, "retry_on"),
        ({"give_up_on": (ValueError, 3)}, "give_up_on"),
        ({"result_ttl": 0.5}, "result_ttl"),
        ({"result_ttl": math.inf}, "result_ttl"),
    ],
)
def test_rejected(stated: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        TaskOptions(**stated)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="retries"):
        TaskOptions().with_stated({"retrys": 3})


def test_what_is_not_stated_stays() -> None:
    options = TaskOptions(retries=3, key="k").with_stated({"retries": 5})
    assert (options.retries, options.key) == (5, "k")


def test_moments_are_seconds_since_the_epoch() -> None:
    assert TaskOptions(at=datetime(1970, 1, 2, tzinfo=UTC)).due_at == 86_400
    assert TaskOptions(at=5.5).due_at == 5.5
    assert TaskOptions().due_at is None


def test_the_policy() -> None:
    policy = TaskOptions(retries=2, retry_on=(OSError, "a:B"), give_up_on=(KeyError,), backoff=3).policy
    assert (policy.retries, policy.backoff) == (2, 3)
    assert policy.retry_on == ("builtins:OSError", "a:B")
    assert policy.give_up_on == ("builtins:KeyError",)
