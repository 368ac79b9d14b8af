"""The benchmark of durable tasks, quick: it measures both sides in turns, and writes what it found."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genro_nats.bench.arguments import add_common_arguments
from genro_nats.bench.task_queue import IdleToRunning, QueueMemory, StoreFigures, WaitFigures
from genro_nats.bench.task_turns import TaskSide
from genro_nats.bench.tasks import TaskFigures, TaskPlan, task_verdicts
from genro_nats.cli import bench as command
from genro_nats.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def test_a_quick_run(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    arguments = ["bench", "tasks", "--quick", "--rounds", "2", "--json", str(written)]
    run = subprocess.run(
        [sys.executable, "-m", "genro_nats.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(written.read_text())
    assert figures["sides"].keys() == {"bare nats-py", "nats"}
    for side in figures["sides"].values():
        assert [len(side[name]) for name in ("p50", "p99", "rate")] == [2, 2, 2]
        assert 0 < side["p50"][0] <= side["p99"][0] < 1
        assert side["rate"][0] > 100
        assert side["cpu"].keys() == {"caller", "worker", "children", "server"}
        assert all(0 < side["cpu"][who][0] < 0.1 for who in ("caller", "worker", "server"))
    assert figures["sides"]["nats"]["cpu"]["children"][0] > 0
    assert [len(figures["storing"][name]) for name in ("floor", "ours")] == [2, 2]
    assert figures["memory"]["tasks"] == figures["plan"]["queued"] == 1_000
    assert 0 < figures["running"]["p50"] <= figures["running"]["p99"] < 1
    assert figures["waiting"]["tasks"] == 500
    assert figures["waiting"]["sent"] == 0
    assert figures["waiting"]["seconds"] > figures["plan"]["waiting"]
    assert len(figures["limits"]) == 7
    assert "must reach" in run.stdout
    assert "64 in flight" in run.stdout


def made_up(p50: float = 1.0, rate: float = 1.0, sent: int = 0, mb: float = 1.0) -> TaskFigures:
    """Figures of a pool that takes ``p50`` and ``rate`` times what the floor does."""
    floor = TaskSide("floor", None, b"", b"", {}, [1.0, 2.0, 9.0], [2.0] * 3, [8_000.0] * 3)  # type: ignore[arg-type]
    ours = TaskSide("ours", None, b"", b"", {}, [p50, 2 * p50, 9.0], [2.0] * 3, [8_000.0 * rate] * 3)  # type: ignore[arg-type]
    memory = QueueMemory(20_000, 200, 10_000_000, 10_000_000 + int(mb * 1e6), 10_000_000)
    storing = StoreFigures(20_000, [10.0, 20.0, 1.0], [10.0 * rate, 20.0 * rate, 1.0])
    return TaskFigures(
        200, floor, ours, storing, memory, memory, WaitFigures(5_000, 1.0, sent), IdleToRunning(0.001, 0.01)
    )


def passed(figures: TaskFigures) -> list[bool]:
    return [it.passed for it in task_verdicts(figures)]


def test_limits() -> None:
    assert passed(made_up(2.0, 0.46, 0, 60)) == [True] * 7
    assert passed(made_up(p50=2.1))[0] is False
    assert passed(made_up(rate=0.44))[1:4] == [False, True, False]
    assert passed(made_up(rate=0.37))[2] is False
    assert passed(made_up(mb=60.1))[4] is False
    assert passed(made_up(sent=1))[5] is False


def test_a_run_measures_what_the_limits_are_about() -> None:
    plan = TaskPlan.of(quick=False, rounds=None)
    assert plan.rounds >= 5
    assert (plan.stored, plan.queued, plan.waited) == (20_000, 20_000, 5_000)
    assert TaskPlan.of(quick=True, rounds=2).rounds == 2


def test_arguments() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_common_arguments(parser, "7")
    parsed = parser.parse_args(["--quick", "--rounds", "3", "--check"])
    assert (parsed.quick, parsed.rounds, parsed.check, parsed.json) == (True, 3, True, None)
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(["--rounds", "0"])


def test_the_command_refuses_scenarios_of_calls() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args([]).what == "calls"
    with pytest.raises(ConfigurationError, match="--only"):
        command.run(parser.parse_args(["tasks", "--only", "calls"]))


def test_the_command_knows_every_benchmark_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    names = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(parser)
    listed = parser.format_help().split("what can be measured:")[1].split("examples")[0]
    assert {line.split()[0] for line in listed.splitlines() if line.strip()} == names
    # Refused by each in its own name, so each is chosen.
    for name in names - {"calls"}:
        with pytest.raises(ConfigurationError, match=f"with {name}$"):
            command.run(parser.parse_args([name, "--only", "calls"]))
