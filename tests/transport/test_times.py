"""Times as servers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats.transport.times import from_rfc3339, to_rfc3339


@given(st.integers(0, 4_000_000_000_000))
def test_there_and_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert from_rfc3339(to_rfc3339(seconds)) == seconds


@given(st.floats(0, 4e9))
def test_never_too_early(seconds: float) -> None:
    assert -1e-6 <= from_rfc3339(to_rfc3339(seconds)) - seconds < 0.001 + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21T04:50:25.236706167Z", 1795236625.236706),
        ("2026-11-21T04:50:25Z", 1795236625.0),
        ("2026-11-21T05:50:25.5+01:00", 1795236625.5),
    ],
)
def test_what_servers_write(text: str, seconds: float) -> None:
    assert from_rfc3339(text) == seconds


def test_no_time() -> None:
    with pytest.raises(ValueError, match="never"):
        from_rfc3339("never")
