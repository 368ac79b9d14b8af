"""What follows an attempt, for each way in which one can end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.errors import CallTimeoutError, WorkerLostError
from genro_nats.tasks.record import Record
from genro_nats.tasks.retry import MAX_DEATHS, MAX_MISSES, RetryPolicy
from genro_nats.tasks.status import TaskState
from genro_nats.worker.tasks.verdict import Again, End, GoBack, Situation, after_attempt
from genro_nats.worker.tasks.work import Ended, GivenBackError

NOW = 1000.0
USUAL = Situation(RetryPolicy(), cancelled=False, leaving=False, stored=True, now=NOW, draw=0.5)
TWICE = replace(USUAL, policy=RetryPolicy(retries=1, backoff=4.0))
REPLY = Ended(FrameKind.REPLY, b"value")
LOST = Ended(FrameKind.ERROR, b"", WorkerLostError("killed"))


def claim(**facts: int | bool) -> Record:
    return replace(Record(TaskState.RUNNING, 1.0, attempts=1), **facts)  # type: ignore[arg-type]


def raised(**facts: object) -> Ended:
    meta = json.dumps({"types": ["m:Wrong", "builtins:Exception"], "text": "no", "retry": None, **facts})
    return Ended(FrameKind.ERROR, encode(Frame(FrameKind.ERROR, meta=meta.encode())))


@pytest.mark.parametrize("ended", [REPLY, LOST, raised()])
def test_what_was_cancelled_ends_cancelled_whatever_came(ended: Ended) -> None:
    verdict = after_attempt(claim(), ended, replace(USUAL, cancelled=True))
    assert verdict == End(TaskState.CANCELLED, "cancelled")


def test_a_value_completes() -> None:
    assert after_attempt(claim(), REPLY, USUAL) == End(TaskState.COMPLETED, frame=b"value")


def test_a_failure_is_tried_again_as_far_as_retries_allow() -> None:
    again = after_attempt(claim(), raised(), TWICE)
    assert isinstance(again, Again)
    assert (again.delay, again.record.state, again.record.failures) == (2.0, TaskState.SCHEDULED, 1)
    assert (again.record.next_retry_at, again.record.error) == (NOW + 2.0, "m:Wrong: no")
    end = after_attempt(claim(failures=1), raised(), TWICE)
    assert isinstance(end, End)
    assert (end.state, end.reason, end.error) == (TaskState.FAILED, "failed after 2 attempts", "m:Wrong: no")


def test_the_function_says_how_long_to_wait() -> None:
    again = after_attempt(claim(), raised(retry=7.0), TWICE)
    assert isinstance(again, Again)
    assert again.delay == 7.0


def test_an_overrun_deadline_is_a_failure_and_named() -> None:
    late = Ended(FrameKind.ERROR, b"", CallTimeoutError("late"))
    end = after_attempt(claim(), late, USUAL)
    assert isinstance(end, End)
    assert end.reason.startswith("deadline: ")
    assert isinstance(after_attempt(claim(), late, TWICE), Again)


def test_deaths_are_counted_where_the_task_was_alone() -> None:
    for deaths in range(MAX_DEATHS - 1):
        again = after_attempt(claim(deaths=deaths), LOST, USUAL)
        assert isinstance(again, Again)
        assert (again.delay, again.record.deaths, again.record.failures) == (0.0, deaths + 1, 0)
    end = after_attempt(claim(deaths=MAX_DEATHS - 1), LOST, USUAL)
    assert isinstance(end, End)
    assert "died 3 times" in end.reason
    behind = after_attempt(claim(deaths=MAX_DEATHS - 1, alone=False), LOST, USUAL)
    assert isinstance(behind, Again)
    leaving = after_attempt(claim(deaths=MAX_DEATHS - 1), LOST, replace(USUAL, leaving=True))
    assert isinstance(leaving, Again)
    assert leaving.record.deaths == MAX_DEATHS - 1


def test_a_missing_function_is_no_attempt_and_given_up_at_last() -> None:
    again = after_attempt(claim(), raised(missing=True), USUAL)
    assert isinstance(again, Again)
    assert (again.record.attempts, again.record.misses, again.record.failures) == (0, 1, 0)
    end = after_attempt(claim(misses=MAX_MISSES - 1), raised(missing=True), USUAL)
    assert isinstance(end, End)
    assert end.state is TaskState.FAILED


def test_what_is_given_back() -> None:
    waited = Ended(FrameKind.ERROR, b"", GivenBackError("waited", began=False))
    assert after_attempt(claim(), waited, replace(USUAL, stored=False)) == GoBack()
    unbegun = after_attempt(claim(), waited, USUAL)
    assert isinstance(unbegun, Again)
    assert (unbegun.record.state, unbegun.record.attempts) == (TaskState.PENDING, 0)
    begun = after_attempt(claim(), Ended(FrameKind.ERROR, b"", GivenBackError("left", began=True)), USUAL)
    assert isinstance(begun, Again)
    assert (begun.record.attempts, begun.record.deaths) == (1, 0)


def test_an_error_frame_without_facts_is_a_failure() -> None:
    end = after_attempt(claim(), Ended(FrameKind.ERROR, encode(Frame(FrameKind.ERROR, meta=b"junk"))), USUAL)
    assert isinstance(end, End)
    assert end.error == "error: "
