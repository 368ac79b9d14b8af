"""How often a function may report."""

from __future__ import annotations

from genro_nats.message import CallContext, ProgressUpdate


def test_only_the_first_completion_is_never_held_back() -> None:
    told: list[ProgressUpdate] = []
    call = CallContext("c", on_progress=told.append)
    call.progress(0.5)
    for _ in range(1000):
        call.progress(1.0)
    assert told[:2] == [ProgressUpdate(0.5), ProgressUpdate(1.0)]
    assert len(told) < 5
