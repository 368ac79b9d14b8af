"""``genro-nats demo`` from beginning to end, and what an interrupted one leaves: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from genro_nats.cli.demo_job import Survey, digest_of, measure, survey
from genro_nats.cli.demo_run import Outcome
from genro_nats.message import CallContext, running_call
from tests.cli.conftest import Running, finished, until


def test_all_runs_come_to_the_same_and_nothing_is_lost(tmp_path: Path) -> None:
    run = finished("demo", "--json", "--modules", "300", TMPDIR=str(tmp_path))
    assert run.returncode == 0, run.stderr
    shown = json.loads(run.stdout)
    runs = [shown["local"], shown["remote"], shown["killed"]]
    assert shown["equal"]
    assert len({each["digest"] for each in runs}) == 1
    assert [each["calls"] for each in runs] == [300, 300, 300]
    assert [each["kind"] for each in runs] == ["process", "nats", "nats"]
    assert shown["killed_pid"] in {place["pid"] for place in shown["killed"]["ran"]}
    assert {lost["pid"] for lost in shown["killed"]["lost"]} <= {shown["killed_pid"]}
    task = shown["task"]
    assert (task["state"], task["attempts"], task["equal"]) == ("completed", 2, True)
    assert task["pids"][0] == task["killed_pid"] != task["pids"][1]
    assert task["resumed_at"][0] == 0 < task["resumed_at"][1]
    assert list(tmp_path.iterdir()) == []
    assert run.stderr == ""


def test_for_people_it_shows_where_calls_ran(tmp_path: Path) -> None:
    run = finished("demo", "--modules", "60", TMPDIR=str(tmp_path), COLUMNS="200")
    assert run.returncode == 0, run.stderr
    assert "All digests are equal: nothing was lost." in run.stdout
    assert "went on from the" in run.stdout
    assert run.stdout.count("where it ran") == 3


@pytest.mark.parametrize(
    ("number", "ignored"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM to a background job of a script"],
)
def test_interrupted_it_leaves_nothing_behind(
    number: signal.Signals, ignored: bool, start: Callable[..., Running], tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir(mode=0o700)
    with ctrl_c_ignored() if ignored else contextlib.nullcontext():
        demo = start("demo", "--json", TMPDIR=str(folder))
    process = psutil.Process(demo.process.pid)

    def children_work() -> bool:
        return _ready(folder) and any(
            "genro_nats.worker.template" in " ".join(child.cmdline()) for child in process.children()
        )

    until(children_work)
    everything = process.children(recursive=True)
    assert len(everything) >= 3  # the server's guard, the worker, and children
    os.killpg(demo.process.pid, number)
    assert demo.ended() == 130
    assert demo.log == ""
    _, alive = psutil.wait_procs(everything, timeout=10)
    assert alive == []
    assert list(folder.iterdir()) == []


@contextlib.contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """By what is started meanwhile, as by what a script starts with ``&``."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_killed_it_takes_the_worker_along(start: Callable[..., Running], tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir(mode=0o700)
    demo = start("demo", "--json", TMPDIR=str(folder))
    until(lambda: _ready(folder))
    everything = psutil.Process(demo.process.pid).children(recursive=True)
    demo.process.kill()
    _, alive = psutil.wait_procs(everything, timeout=20)
    assert alive == []


def _ready(folder: Path) -> bool:
    return any("worker.ready" in log.read_text("utf-8") for log in folder.glob("*/worker.log"))


def test_without_rich_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('none here')\n")
    hidden = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    run: subprocess.CompletedProcess[str] = finished("demo", PYTHONPATH=hidden)
    assert run.returncode == 2
    assert 'pip install "genro-nats[cli,embedded]"' in run.stderr


def test_the_job_counts() -> None:
    found = measure("a.py", b"class A:\n    def f(self):\n        if self and 1: pass\n")
    assert (found.lines, found.classes, found.functions, found.branches) == (3, 1, 1, 2)
    assert found.parsed
    broken = measure("b.py", b"def")
    assert not broken.parsed


def test_a_survey_goes_on_where_it_left_off(tmp_path: Path) -> None:
    names = [f"{number}.py" for number in range(3)]
    for name in names:
        (tmp_path / name).write_text(f"x{name[0]} = 1\n")
    whole = survey(str(tmp_path), names)
    (tmp_path / "0.py").unlink()
    first = measure("0.py", b"x0 = 1\n").facts
    rest = CallContext("id", checkpointed=Survey({first}, 1, [1], [0]))
    token = running_call.set(rest)
    try:
        again = survey(str(tmp_path), names)
    finally:
        running_call.reset(token)
    assert (again.digest, again.measured, again.resumed_at) == (whole.digest, 3, [0, 1])
    assert again.digest == digest_of(measure(name, f"x{name[0]} = 1\n".encode()).facts for name in names)


def test_the_digest_depends_on_facts_not_on_order_or_place() -> None:
    one, two = measure("a", b"x = 1\n"), measure("b", b"y = 2\n")
    assert Outcome(results=[one, two]).digest == Outcome("nats", 3.0, [two, one]).digest
    assert Outcome(results=[one]).digest != Outcome(results=[two]).digest
