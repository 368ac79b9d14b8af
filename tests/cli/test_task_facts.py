"""What is known of a task, for machines and for people."""

from __future__ import annotations

import json

import pytest

from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json, one_line, plain, shown, status_facts, status_lines
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.status import TaskState, TaskStatus
from tests.cli.samples import Mute


def test_any_value_becomes_json() -> None:
    ring: list[object] = []
    ring.append(ring)
    assert plain({"a": (1, None)}) == {"a": [1, None]}
    assert plain({1j}) == "{1j}"
    assert plain({(1, 2): 3}) == "{(1, 2): 3}"
    assert plain(ring) == "[[...]]"
    status = TaskStatus("i", TaskState.RUNNING, 1.0, progress=ProgressUpdate(0.5, "half", {(1,): 2}))
    found = json.loads(as_json(status_facts(status)))
    assert (found["state"], found["progress"]) == (
        "running",
        {"fraction": 0.5, "text": "half", "data": "{(1,): 2}"},
    )


def test_what_cannot_be_shown_says_why() -> None:
    mute = "<repr() of this Mute raised RuntimeError: no words>"
    assert shown(Mute()) == mute
    assert plain({"a": 1, "b": Mute()}) == {"a": 1, "b": mute}
    assert plain({Mute(): 1}).startswith("<repr() of this dict raised RuntimeError")
    for value in (10**5000, [10**5000]):
        assert "Exceeds the limit (4300 digits)" in plain(value)
    status = TaskStatus("i", TaskState.RUNNING, 1.0, progress=ProgressUpdate(0.5, "half", Mute()))
    assert json.loads(as_json(status_facts(status)))["progress"]["data"] == mute


def test_numbers_that_json_does_not_have_are_texts() -> None:
    numbers = [float("nan"), float("inf"), {"low": float("-inf")}, 1.5]
    assert plain(numbers) == ["nan", "inf", {"low": "-inf"}, 1.5]
    assert as_json({"mean": float("nan")}) == '{"mean": "nan"}'


def test_what_people_see_says_something() -> None:
    status = TaskStatus("i", TaskState.SCHEDULED, 1.0, attempts=1, error="a\nb", next_retry_at=2.0)
    assert [name for name, _ in status_lines(status)] == [
        "task", "state", "attempts", "created", "next retry", "error",
    ]  # fmt: skip
    assert dict(status_lines(status))["error"] == "a b"
    assert one_line("\x1b[2Jgone " + "x" * 200) == "?[2Jgone " + "x" * 88 + "..."


def test_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("a", "bb"), [("long", "1"), ("s", "")])
    assert capsys.readouterr().out == "a     bb\nlong  1\ns\n"


def test_on_a_terminal_rich_draws_and_takes_nothing_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genro_nats.cli.tables.fancy", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    show_table(("task", "error"), [("f" * 32, "[red]no[/red] " + "word " * 20)])
    head, first, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["task", "error"]
    assert first.startswith("f" * 32 + "  [red]no[/red] word")
    assert len(rest) >= 3  # the error is folded, the id is not
