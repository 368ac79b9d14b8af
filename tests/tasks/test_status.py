"""The life of a task: every pair of states, and what a change does to a status."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from genro_nats.errors import TaskError
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.status import TRANSITIONS, TaskState, TaskStatus, advance, may_follow

# Written out a second time on purpose: a change of the table must be meant.
ALLOWED = {
    "scheduled": "pending running failed cancelled",
    "pending": "running failed cancelled",
    "running": "scheduled pending running completed failed cancelled",
    "completed": "",
    "failed": "",
    "cancelled": "",
}
PAIRS = list(product(TaskState, TaskState))
SETTLED = {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}


def status(state: TaskState) -> TaskStatus:
    return TaskStatus("t1", state, created_at=1.0, attempts=2, worker="w", pid=7, error="E")


@pytest.mark.parametrize(("state", "to"), PAIRS)
def test_every_pair(state: TaskState, to: TaskState) -> None:
    allowed = to in ALLOWED[state].split()
    assert may_follow(state, to) is allowed
    if allowed:
        assert advance(status(state), to, at=5.0).state is to
    else:
        with pytest.raises(TaskError, match=f"Task t1 is {state} and can't become {to}"):
            advance(status(state), to, at=5.0)


def test_the_settled_states() -> None:
    assert {state for state in TaskState if state.settled} == SETTLED
    assert set(TRANSITIONS) == set(TaskState)
    with pytest.raises(TypeError):
        TRANSITIONS[TaskState.FAILED] = frozenset(TaskState)  # type: ignore[index]


def test_every_state_is_reached_and_can_end() -> None:
    for state in set(TaskState) - SETTLED:
        assert {TaskState.FAILED, TaskState.CANCELLED} <= TRANSITIONS[state]
    reached = {TaskState.SCHEDULED}
    for _ in TaskState:
        reached |= {to for state in reached for to in TRANSITIONS[state]}
    assert reached == set(TaskState)


def test_a_life_with_a_retry() -> None:
    first = TaskStatus("t1", TaskState.PENDING, created_at=1.0)
    running = advance(first, TaskState.RUNNING, at=2.0, worker="w1", pid=11)
    assert (running.attempts, running.started_at, running.worker, running.pid) == (1, 2.0, "w1", 11)
    assert not running.settled
    waiting = advance(
        replace(running, progress=ProgressUpdate(0.5)),
        TaskState.SCHEDULED,
        at=3.0,
        error="boom",
        next_retry_at=9.0,
    )
    assert (waiting.error, waiting.next_retry_at, waiting.finished_at) == ("boom", 9.0, None)
    again = advance(waiting, TaskState.RUNNING, at=9.5, worker="w2", pid=12)
    assert again == TaskStatus(
        "t1", TaskState.RUNNING, created_at=1.0, attempts=2, worker="w2", pid=12, started_at=9.5
    )
    done = advance(again, TaskState.COMPLETED, at=10.0)
    assert done == replace(again, state=TaskState.COMPLETED, finished_at=10.0)
    assert done.settled


def test_why_it_failed_stays() -> None:
    running = advance(TaskStatus("t1", TaskState.PENDING, 1.0), TaskState.RUNNING, at=2.0, worker="w", pid=1)
    failed = advance(running, TaskState.FAILED, at=3.0, error="died three times", next_retry_at=7.0)
    assert (failed.error, failed.finished_at, failed.next_retry_at) == ("died three times", 3.0, None)
    assert (failed.worker, failed.pid) == ("w", 1)


def test_it_reads_as_its_name() -> None:
    assert f"{TaskState.RUNNING}" == "running"
    assert TaskState("failed") is TaskState.FAILED
