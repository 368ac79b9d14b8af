"""The pauses between attempts."""

from __future__ import annotations

from genro_nats.transport.backoff import backoff


def test_it_doubles_up_to_its_limit_and_never_overflows() -> None:
    assert [backoff(attempt, 0.1, 1.0) for attempt in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff(10**9, 0.02, 0.5) == 0.5
