"""The commands that show a fleet and drain it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor, PoolOptions, __version__
from genro_nats.cli import drain
from genro_nats.cli.drain import chosen
from genro_nats.cli.fleet_facts import lasting
from genro_nats.cli.main import main
from genro_nats.config.versions import apart
from genro_nats.errors import ConfigurationError, NoWorkersError, WorkerLostError
from genro_nats.server import EmbeddedServer
from tests.cli import samples
from tests.cli.conftest import COMMAND, ROOT, Running, environment, until

Begin = Callable[..., Running]
Run = Callable[..., "Done"]


@pytest.fixture
def prefix() -> str:
    return f"f{os.urandom(4).hex()}"


@pytest.fixture
def fleet(worker: Begin, prefix: str) -> Begin:
    """Start workers that are ready."""

    def begin(*arguments: str) -> Running:
        running = worker("--url", "embedded", "--prefix", prefix, "--processes", "1", *arguments)
        running.logged("worker.ready")
        return running

    return begin


@dataclass
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(
    server: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a command here: a process for each would take most of the time."""
    monkeypatch.setenv("GENRO_NATS_HOME", str(server.directory))

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = main([*arguments, "--url", "embedded", "--prefix", prefix])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def shown(command: Run) -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        done = command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def pool(server: EmbeddedServer, prefix: str, subject: str) -> NatsExecutor:
    access: Any = {"url": (server.url,), "user": server.user, "password": server.password}
    return NatsExecutor("t", PoolOptions(**access, subject=subject, prefix=prefix))


def test_workers_are_shown_with_what_they_do(fleet: Begin, command: Run, shown: Callable[..., Any]) -> None:
    first = fleet("--subject", "fleet.a", "--subject", "fleet.b", "--code-version", "release-7")
    second = fleet("--subject", "fleet.a")
    found = shown("workers")
    assert {facts["pid"] for facts in found} == {first.process.pid, second.process.pid}
    facts = next(facts for facts in found if facts["pid"] == first.process.pid)
    assert facts["code"] == "release-7"
    assert [pool["subject"] for pool in facts["pools"]] == ["fleet.a", "fleet.b"]
    assert facts["version"] == __version__
    done = command("workers")
    head, *rows = done.stdout.splitlines()
    assert done.returncode == 0
    assert head.split()[:4] == ["worker", "host", "pid", "state"]
    (row,) = [row for row in rows if facts["worker"] in row]
    assert "serving" in row and "fleet.a, fleet.b" in row and "0/2" in row and "release-7" in row
    assert len(rows) == 2


@pytest.mark.parametrize("line", ["workers", "top --once", "drain --all", "pools"])
def test_without_workers_it_says_what_to_do(command: Run, line: str) -> None:
    done = command(*line.split())
    assert done.returncode == 1
    assert done.stdout == ""
    assert "No worker answers at nats://" in done.stderr
    assert "genro-nats worker" in done.stderr and "--prefix" in done.stderr


def test_for_programs_no_workers_are_an_empty_list(command: Run) -> None:
    done = command("workers", "--json")
    assert (done.returncode, done.stdout) == (1, "[]\n")


def test_pools_are_sums_over_workers_and_show_tasks_that_nobody_serves(
    fleet: Begin, shown: Callable[..., Any], command: Run, server: EmbeddedServer, prefix: str
) -> None:
    first = fleet("--subject", "fleet.a")
    fleet("--subject", "fleet.a")

    async def leave_tasks() -> None:
        async with pool(server, prefix, "lonely.one") as lonely:
            for number in range(3):
                await lonely(samples.double).enqueue(number)

    asyncio.run(leave_tasks())
    found = {facts["subject"]: facts for facts in shown("pools")}
    assert (found["fleet.a"]["workers"], found["fleet.a"]["slots"], found["fleet.a"]["tasks"]) == (2, 2, 0)
    assert (found["lonely.one"]["workers"], found["lonely.one"]["tasks"]) == (0, 3)
    assert "nobody serves lonely.one: genro-nats worker --subject lonely.one" in command("pools").stdout
    first.process.terminate()
    first.ended()
    assert {facts["subject"]: facts for facts in shown("pools")}["fleet.a"]["workers"] == 1


def test_top_counts_calls_per_second(
    fleet: Begin, shown: Callable[..., Any], command: Run, server: EmbeddedServer, prefix: str
) -> None:
    fleet("--subject", "fleet.a")
    stopping = threading.Event()

    async def call() -> None:
        async with pool(server, prefix, "fleet.a") as remote:
            while not stopping.is_set():
                await remote.submit(samples.double, 1)

    calling = threading.Thread(target=lambda: asyncio.run(call()))
    calling.start()
    try:
        until(lambda: shown("workers")[0]["pools"][0]["completed"] > 0)
        facts = shown("top", "--once", "--interval", "500ms")
        assert facts["totals"]["calls_per_second"] > 0
        assert facts["totals"]["workers"] == 1
        done = command("top", "--once", "--interval", "200ms")
        assert "calls/s" in done.stdout and "1 workers" in done.stdout
    finally:
        stopping.set()
        calling.join(20)


def test_top_goes_on_until_it_is_interrupted(
    fleet: Begin, start: Begin, server: EmbeddedServer, prefix: str
) -> None:
    fleet("--subject", "fleet.a")
    where = ("--url", "embedded", "--prefix", prefix, "--json", "--interval", "200ms")
    top = start("top", *where, GENRO_NATS_HOME=str(server.directory))
    assert top.process.stdout is not None
    lines = [json.loads(top.process.stdout.readline()) for _ in range(3)]
    assert [len(line["workers"]) for line in lines] == [1, 1, 1]
    assert lines[0]["at"] < lines[1]["at"] < lines[2]["at"]
    top.process.send_signal(signal.SIGINT)
    assert top.ended() == 0
    assert "Traceback" not in top.log


def test_top_draws_on_a_terminal_and_leaves_it_as_it_was(
    fleet: Begin, server: EmbeddedServer, prefix: str, tmp_path: Path
) -> None:
    import pty

    fleet("--subject", "fleet.a")
    ours, theirs = pty.openpty()
    arguments = ("top", "--url", "embedded", "--prefix", prefix, "--interval", "200ms")
    env = environment(GENRO_NATS_HOME=str(server.directory), TERM="xterm", COLUMNS="160", LINES="40")
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, cwd=ROOT, env=env
    )
    os.close(theirs)
    drawn = b""

    def read(wanted: bytes) -> bool:
        nonlocal drawn
        try:
            drawn += os.read(ours, 65536)
        except OSError:  # its other end is closed
            return True
        return wanted in drawn

    try:
        until(lambda: read(b"fleet.a"))
        process.send_signal(signal.SIGINT)
        until(lambda: read(b"\x1b[?1049l"))  # back to the ordinary screen
        assert process.wait(20) == 0
        assert b"\x1b[?1049l" in drawn and b"Traceback" not in drawn
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def test_drain_waits_until_the_worker_has_gone(
    fleet: Begin, command: Run, shown: Callable[..., Any], server: EmbeddedServer, prefix: str
) -> None:
    first, second = fleet("--subject", "fleet.a"), fleet("--subject", "fleet.b")
    id = next(facts["worker"] for facts in shown("workers") if facts["pid"] == first.process.pid)
    outcome: list[Any] = []

    async def call() -> None:
        async with pool(server, prefix, "fleet.a") as remote:
            outcome.append(await remote.submit(time.sleep, 2.0))

    calling = threading.Thread(target=lambda: asyncio.run(call()))
    calling.start()
    until(lambda: any(pool["busy"] for facts in shown("workers") for pool in facts["pools"]))
    done = command("drain", id[:10])
    calling.join(20)
    assert done.returncode == 0, done.stderr
    assert outcome == [None]
    lines = done.stdout.splitlines()
    assert lines[0] == f"{id}  told to leave, 1 calls in hand"
    assert lines[-1] == f"{id}  left, all done"
    assert first.process.wait(0.5) == 0  # it had gone when the command said so, but for the exit itself
    assert second.process.poll() is None
    assert [facts["pid"] for facts in shown("workers")] == [second.process.pid]


def test_drain_tells_when_a_call_was_left_or_takes_too_long(
    fleet: Begin, command: Run, shown: Callable[..., Any], server: EmbeddedServer, prefix: str
) -> None:
    fleet("--subject", "fleet.a", "--drain-timeout", "2s")
    host = shown("workers")[0]["host"]

    async def call() -> None:
        async with pool(server, prefix, "fleet.a") as remote:
            with pytest.raises(Exception, match="shut down"):
                await remote.submit(time.sleep, 60.0)

    calling = threading.Thread(target=lambda: asyncio.run(call()))
    calling.start()
    until(lambda: any(pool["busy"] for facts in shown("workers") for pool in facts["pools"]))
    late = command("drain", "--host", host, "--timeout", "100ms")
    assert late.returncode == 1
    assert "Still there after 0.1 s" in late.stderr and "go on draining" in late.stderr
    done = command("drain", "--all")
    calling.join(20)
    assert done.returncode == 1
    assert "left, 1 calls undone" in done.stdout


def test_drain_notices_a_worker_that_is_killed_meanwhile(
    fleet: Begin,
    command: Run,
    shown: Callable[..., Any],
    server: EmbeddedServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "_SILENT", 3.0)
    running = fleet("--subject", "fleet.a")

    async def call() -> None:
        async with pool(server, prefix, "fleet.a") as remote:
            with pytest.raises(WorkerLostError):
                await remote.submit(time.sleep, 60.0)

    calling = threading.Thread(target=lambda: asyncio.run(call()))
    calling.start()
    until(lambda: any(pool["busy"] for facts in shown("workers") for pool in facts["pools"]))

    def kill() -> None:
        running.logged("worker.draining")
        running.process.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    done = command("drain", "--all")
    killing.join(20)
    calling.join(20)
    assert done.returncode == 1
    assert "fell silent: it may have been killed" in done.stdout


def test_drain_without_waiting(fleet: Begin, command: Run) -> None:
    first = fleet("--subject", "fleet.a")
    done = command("drain", "--all", "--no-wait")
    assert (done.returncode, done.stdout.count("told to leave")) == (0, 1)
    assert first.ended() == 0
    wrong = command("drain", "--host", "elsewhere")
    assert wrong.returncode == 1 and "No worker answers" in wrong.stderr


def test_whom_drain_means() -> None:
    there = [{"worker": id, "host": host} for id, host in (("ab12", "x"), ("ab34", "x"), ("cd56", "y"))]
    assert chosen(there, "cd", None) == chosen(there, None, "y") == [there[2]]
    assert chosen(there, None, None) == there
    with pytest.raises(ConfigurationError, match="'ab' is the beginning of 2 workers: ab12, ab34"):
        chosen(there, "ab", None)
    with pytest.raises(NoWorkersError, match=r"no worker zz\. There are: ab12 on x"):
        chosen(there, "zz", None)


# -- versions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "are_apart"),
    [
        ("0.1.0", "0.2.9", False),
        ("0.2.0", "0.1.0", False),
        ("0.1.0", "0.3.0", True),
        ("1.9.0", "2.0.0", True),
        ("0.1.0", "0+unknown", False),
        ("0.1.0", "", False),
    ],
)
def test_versions_one_minor_apart_work_together(one: str, other: str, are_apart: bool) -> None:
    assert apart(one, other) is are_apart


_PATCHED = """
import sys, genro_nats
genro_nats.__version__ = sys.argv.pop(1)
from genro_nats.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def minor(away: int) -> str:
    major, middle, *_ = __version__.split(".")
    return f"{major}.{int(middle) + away}.0"


@pytest.fixture
def patched(server: EmbeddedServer, prefix: str, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Start workers that say they are of another version; their log."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(version: str, directory: str = "") -> Path:
        log = tmp_path / f"{len(started)}.log"
        arguments = (
            "worker",
            "--url",
            "embedded",
            "--prefix",
            prefix,
            "--processes",
            "1",
            "--subject",
            "fleet.a",
        )
        env = environment(GENRO_NATS_HOME=str(server.directory))
        with log.open("wb") as out:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", _PATCHED, version, *arguments], stderr=out, cwd=ROOT, env=env
                )
            )
        until(lambda: "worker.ready" in log.read_text())
        return log

    yield begin
    for process in started:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("away", [1, 2])
def test_a_worker_of_another_version(
    patched: Callable[..., Path], command: Run, server: EmbeddedServer, prefix: str, away: int
) -> None:
    log = patched(minor(away))

    async def call() -> Any:
        async with pool(server, prefix, "fleet.a") as remote:
            value = await asyncio.wait_for(remote.submit(samples.double, 21), 20)
            task = await remote(samples.double).enqueue(4)
            return value, await task.result(timeout=20)

    assert asyncio.run(call()) == (42, 8)
    note = f"genro-nats {minor(away)} is more than one minor version from {__version__}"
    told = command("workers").stdout
    assert minor(away) in told
    warning = f"caller.apart version={__version__} own={minor(away)}"
    if away == 1:
        assert note not in told and warning not in log.read_text()
    else:
        assert note in told
        until(lambda: warning in log.read_text())


def test_the_wheel_that_was_released_before(
    server: EmbeddedServer, prefix: str, tmp_path: Path, command: Run
) -> None:
    wheel = os.environ.get("GENRO_NATS_PREVIOUS_WHEEL")
    if not wheel:
        pytest.skip("GENRO_NATS_PREVIOUS_WHEEL names no wheel: nothing was released before this version")
    target = tmp_path / "previous"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target), wheel]
    subprocess.run(install, check=True, timeout=100, capture_output=True)
    log = tmp_path / "previous.log"
    arguments = (
        "worker",
        "--url",
        "embedded",
        "--prefix",
        prefix,
        "--processes",
        "1",
        "--subject",
        "fleet.a",
    )
    env = {**environment(GENRO_NATS_HOME=str(server.directory)), "PYTHONPATH": f"{target}{os.pathsep}{ROOT}"}
    with log.open("wb") as out:
        process = subprocess.Popen([*COMMAND, *arguments], stderr=out, cwd=tmp_path, env=env)
    try:
        until(lambda: "worker.ready" in log.read_text())

        async def call() -> Any:
            async with pool(server, prefix, "fleet.a") as remote:
                task = await remote(samples.double).enqueue(4)
                return await remote.submit(samples.double, 21), await task.result(timeout=20)

        assert asyncio.run(call()) == (42, 8)
        assert "fleet.a" in command("workers").stdout
    finally:
        process.kill()
        process.wait(10)


def test_durations_in_words() -> None:
    assert [lasting(s) for s in (0, 59.9, 60, 3661, 90_000)] == ["0s", "59s", "1m", "1h 1m", "1d 1h"]
