"""``genro-nats worker`` as a real process: it serves, drains, and says why it can't."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genro_nats.errors import ExecutorError
from genro_nats.server import EmbeddedServer
from tests.cli import samples
from tests.cli.conftest import COMMAND, ROOT, Running, environment, json_lines, pool, until

ONE = ("--url", "embedded", "--processes", "1", "--spares", "0")


async def _held(server: EmbeddedServer, subject: str, folder: Path, then: Callable[[], Any]) -> Any:
    """The outcome of a call that is running when ``then`` is called (in a thread)."""
    async with pool(server, subject) as remote, asyncio.timeout(40):
        started, release = folder / "started", folder / "release"
        running = asyncio.create_task(remote.submit(samples.hold, str(started), str(release)))
        await asyncio.to_thread(until, started.exists)
        await asyncio.to_thread(then)
        return await running


def test_sigterm_finishes_the_call_in_hand(
    worker: Callable[..., Running], server: EmbeddedServer, tmp_path: Path
) -> None:
    running = worker("--subject", "drain", *ONE)
    running.logged("worker.ready")

    def leave() -> None:
        running.process.send_signal(signal.SIGTERM)
        running.logged("worker.draining")
        assert running.process.poll() is None
        (tmp_path / "release").touch()

    assert asyncio.run(_held(server, "drain", tmp_path, leave)) == "released"
    assert running.ended() == 0
    assert "child.lost" not in running.log


def test_a_second_signal_ends_it_at_once(
    worker: Callable[..., Running], server: EmbeddedServer, tmp_path: Path
) -> None:
    running = worker("--subject", "abort", *ONE)
    running.logged("worker.ready")

    def leave() -> None:
        running.process.send_signal(signal.SIGTERM)
        running.logged("worker.draining")
        running.process.send_signal(signal.SIGTERM)

    with pytest.raises(ExecutorError):
        asyncio.run(_held(server, "abort", tmp_path, leave))
    assert running.ended() == 1
    running.logged("worker.aborted")


def test_calls_over_the_drain_timeout_are_left(
    worker: Callable[..., Running], server: EmbeddedServer, tmp_path: Path
) -> None:
    running = worker("--subject", "late", "--drain-timeout", "100ms", *ONE)
    running.logged("worker.ready")
    with pytest.raises(ExecutorError):
        asyncio.run(_held(server, "late", tmp_path, lambda: running.process.send_signal(signal.SIGTERM)))
    assert running.ended() == 1
    running.logged("worker.drained left=1")


def test_several_pools_from_a_file(
    worker: Callable[..., Running], call: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(
        '[worker]\nurl = "embedded"\n'
        '[pools.one]\nprocesses = 1\nspares = 0\ninit = "tests.cli.samples:load"\n'
        '[pools.two]\nsubject = "second"\nprocesses = 1\nspares = 0\nasync = true\n',
        "utf-8",
    )
    running = worker("--config", str(file))
    running.logged("worker.ready", times=2)
    assert call("tasks.one", samples.loaded) == "yes"
    value, pid = call("second", samples.where_async, 2)
    assert value == 2
    assert pid != call("tasks.one", samples.where, 1)[1]
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 0


def test_modules_come_from_path(
    worker: Callable[..., Running], call: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "only_here.py").write_text("def load():\n    import os\n    os.environ['LOADED'] = 'yes'\n")
    running = worker("--subject", "path", "--path", str(tmp_path), "--init", "only_here:load", *ONE)
    running.logged("worker.ready")
    assert call("path", samples.loaded) == "yes"


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--import", "no_such_module"), "No module named 'no_such_module'"),
        (("--init", "tests.cli.samples:fail"), "RuntimeError: no model here"),
    ],
)
def test_children_that_cannot_start_end_the_worker(
    option: tuple[str, str], why: str, worker: Callable[..., Running]
) -> None:
    running = worker("--subject", "broken", *option, *ONE)
    assert running.ended() == 1
    assert why in running.log
    assert "Traceback" in running.log
    assert "worker.ready" not in running.log


def test_no_server_is_exit_code_1(start: Callable[..., Running]) -> None:
    running = start("worker", "--subject", "a", "--url", "nats://127.0.0.1:9", "--connect-timeout", "300ms")
    assert running.ended() == 1
    assert "127.0.0.1:9" in running.log
    assert "UNSIGNED" not in running.log


def test_unsigned_calls_from_another_machine_are_a_loud_warning(start: Callable[..., Running]) -> None:
    running = start(
        "worker", "--subject", "a", "--url", "nats://nowhere.invalid:4222", "--connect-timeout", "300ms"
    )
    assert running.ended() == 1
    assert running.log.count("WARNING worker.unsigned") == 1


def test_a_signal_before_it_is_ready_ends_it(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\ntime.sleep(60)\n"
    )
    running = start(
        "worker", "--subject", "a", "--path", str(tmp_path), "--import", "slow", *ONE,
        GENRO_NATS_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    until((tmp_path / "begun").exists)
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0


def test_it_leaves_when_its_standard_input_ends(worker: Callable[..., Running]) -> None:
    running = worker("--subject", "owned", "--until-stdin-closes", *ONE)
    running.logged("worker.ready")
    assert running.process.stdin is not None
    running.process.stdin.close()
    running.process.stdin = None
    assert running.ended() == 0


def test_a_standard_input_that_never_ends_is_refused() -> None:
    command = [*COMMAND, "worker", "--subject", "a", "--until-stdin-closes"]
    run = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment(),
    )
    assert run.returncode == 2
    assert "needs a pipe" in run.stderr


def test_json_logs_hold_events_and_facts(worker: Callable[..., Running]) -> None:
    running = worker("--subject", "json", "--log-json", *ONE)
    running.logged("worker.ready")
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0
    lines = {line["event"]: line for line in json_lines(running.log)}
    assert lines["worker.ready"]["facts"]["subject"] == "json"
    assert lines["worker.drained"]["facts"] == {"left": 0}
    assert lines["worker.ready"]["level"] == "info"


_ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_terminal_that_goes_away_is_no_wish_for_new_code(server: EmbeddedServer) -> None:
    ours, theirs = os.openpty()
    arguments = ("worker", "--url", "embedded", "--subject", "tasks.terminal", "--processes", "1")
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment(GENRO_NATS_HOME=str(server.directory)),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"worker.ready" not in shown:
            shown += os.read(ours, 65536)
        os.close(ours)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
