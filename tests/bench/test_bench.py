"""The benchmark itself, quick: it measures, loses nothing, and writes what it found."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genro_nats.bench import add_arguments
from genro_nats.bench.plan import Plan
from genro_nats.bench.processes import cpu_seconds, family, memory, resident

ROOT = Path(__file__).parents[2]
SYSTEMS = {
    "nats-py echo", "ProcessPoolExecutor", "anyio.to_process",
    "inline", "thread", "process", "async", "async-process", "nats",
}  # fmt: skip


def bench(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """What a quick run wrote and printed. In a process of its own: it forks, and starts loops."""
    written = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, "benchmarks/calls.py", "--quick", "--json", str(written), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    figures: dict[str, Any] = json.loads(written.read_text())
    return figures, run.stdout


def test_calls_on_every_system(tmp_path: Path) -> None:
    figures, printed = bench(tmp_path, "--only", "calls")
    calls = {it["name"]: it for it in figures["calls"]}
    assert calls.keys() >= SYSTEMS
    for it in calls.values():
        assert it["in_flight"] >= 1_000
        assert [len(it[figure]) for figure in ("p50", "p99", "rate", "big")] == [1, 1, 1, 1]
        assert 0 < it["p50"][0] <= it["p99"][0] < 1
        assert it["rate"][0] > 100
        assert 0 < it["big"][0] < 10
    assert len(figures["limits"]) == 6
    assert figures["inflight"] is None
    assert figures["machine"]["cpus"] >= 1
    assert "x ProcessPoolExecutor" in printed
    assert "must reach" in printed


def test_in_flight_schedule_import_and_idle(tmp_path: Path) -> None:
    figures, _ = bench(tmp_path, "--only", "inflight,schedule,import,idle")
    inflight = figures["inflight"]
    assert (inflight["lost"], inflight["outstanding"]) == (0, 10_000)
    assert 0 < inflight["peak"] - inflight["before"] < 500_000_000
    assert [(it["kind"], it["functions"]) for it in figures["schedule"]] == [
        ("process", 1), ("process", 2), ("nats", 1), ("nats", 2),
    ]  # fmt: skip
    for it in figures["schedule"]:
        assert it["best"] == pytest.approx(0.55)
        assert it["best"] <= it["makespans"][0] < 10
    assert 0 < figures["imports"]["bare"] < 5
    assert figures["imports"]["package"] < figures["imports"]["nats"] < 5
    assert figures["idle"]["processes"] >= 3
    assert 0 <= figures["idle"]["share"] < 1
    assert figures["idle"]["memory"] > 1_000_000
    assert figures["calls"] is None


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_arguments() -> None:
    assert parsed().only == ("calls", "inflight", "schedule", "import", "idle")
    assert parsed("--only", "idle, calls").only == ("calls", "idle")
    assert parsed("--rounds", "3").rounds == 3
    assert (parsed().check, parsed().quick, parsed().json) == (False, False, None)
    for wrong in (["--only", "nothing"], ["--rounds", "0"], ["--rounds", "x"]):
        with pytest.raises(argparse.ArgumentError):
            parsed(*wrong)


def test_a_run_measures_what_the_limits_are_about() -> None:
    plan = Plan.of(quick=False, rounds=None)
    assert (plan.rounds, plan.sequential, plan.in_flight, plan.big_echoes) == (7, 500, 10_000, 7)
    assert (plan.longs, plan.long_seconds, plan.shorts, plan.short_seconds) == (20, 0.2, 200, 0.001)
    assert Plan.of(quick=True, rounds=2).rounds == 2


def test_processes_are_seen_with_what_they_use() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = family(process.pid)
        assert len(pids) == 2
        assert all(resident(pid) > 1_000_000 for pid in pids)
        assert all(0 < memory(pid) <= 2 * resident(pid) for pid in pids)
        assert all(cpu_seconds(pid) >= 0 for pid in pids)
        process.communicate("\n", timeout=10)
    assert cpu_seconds(os.getpid()) > 0


def test_payloads(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, "benchmarks/payloads.py", "--quick", "--json", str(written)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    figures: dict[str, Any] = json.loads(written.read_text())
    assert len(figures["limits"]) == 10
    closures = {it["kind"]: it for it in figures["closures"]}
    assert closures.keys() == {"nats", "process"}
    assert all(it["by_name"][0] > 0 < it["by_value"][0] for it in closures.values())
    assert [len(figures["big"][name]) for name in ("floor", "ours")] == [1, 1]
    (huge,) = figures["huge"]
    assert huge["seconds"] > 0
    if sys.platform == "linux":
        assert huge["size"] < huge["caller"] < 4 * huge["size"]
        assert huge["size"] < huge["worker"] < 4 * huge["size"]
    assert 0 < figures["beside"]["ours"][0] < 5
    assert "small calls beside" in run.stdout
    assert len(figures["signed"]["plain"]) == len(figures["signed"]["signed"]) == 2
    assert "signed calls/s" in run.stdout
