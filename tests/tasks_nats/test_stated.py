"""Options of tasks that make no sense are refused before anything is stored, by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from genro_nats.errors import ConfigurationError
from genro_nats.tasks.options import TaskOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", float("nan")),
        ("at", float("inf")),
        ("at", 1e18),
        ("at", True),
        ("at", "tomorrow"),
        ("delay", 1e12),
        ("expires", 1e13),
        ("result_ttl", 1e13),
        ("retries", "3"),
        ("retries", 2.5),
        ("retries", True),
        ("retries", None),
        ("backoff", None),
        ("backoff", "1"),
        ("backoff_factor", "2"),
        ("id", "\ud800"),
        ("key", "\ud800"),
    ],
)
def test_nonsense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}="):
        TaskOptions(**{name: value})


def test_any_time_is_taken() -> None:
    assert TaskOptions(at=-5).due_at == -5
    assert TaskOptions(at=datetime.now(UTC) - timedelta(days=1)).due_at is not None
