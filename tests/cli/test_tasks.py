"""The commands about durable tasks, against a real server and worker."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor, TaskState
from genro_nats.cli.main import main
from genro_nats.server import EmbeddedServer
from tests.cli import samples
from tests.cli.conftest import COMMAND, ROOT, Running, environment, json_lines, pool, until

SUBJECT = "tasks.cli"
HERE = ("--url", "embedded", "--subject", SUBJECT)


@pytest.fixture(scope="module")
def serving(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A worker of two children."""
    running = Running(
        tmp_path_factory.mktemp("worker") / "log",
        ("worker", *HERE, "--processes", "2", "--cancel-grace", "300ms"),
        GENRO_NATS_HOME=str(server.directory),
    )
    running.logged("worker.ready")
    yield running
    running.process.kill()
    running.process.communicate(timeout=10)


@pytest.fixture
def home(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> EmbeddedServer:
    monkeypatch.setenv("GENRO_NATS_HOME", str(server.directory))
    return server


Asked = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(home: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> Asked:
    """Run a command here: its exit code, output and errors."""

    def run(*line: str, subject: str = SUBJECT) -> tuple[int, str, str]:
        code = main([*line, "--url", "embedded", "--subject", subject])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def do(home: EmbeddedServer) -> Callable[[Callable[[NatsExecutor], Awaitable[Any]]], Any]:
    """Do something with the pool."""

    def run(work: Callable[[NatsExecutor], Awaitable[Any]], subject: str = SUBJECT) -> Any:
        async def within() -> Any:
            async with pool(home, subject) as remote, asyncio.timeout(40):
                return await work(remote)

        return asyncio.run(within())

    return run


@pytest.fixture
def watch(home: EmbeddedServer) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Watch a task in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(id: str, *more: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        watcher = subprocess.Popen(
            [*COMMAND, "task", id, "--watch", *HERE, *more],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(GENRO_NATS_HOME=str(home.directory), COLUMNS="100", TERM="xterm"),
        )
        started.append(watcher)
        return watcher

    yield begin
    for watcher in started:
        if watcher.poll() is None:
            watcher.kill()
            watcher.communicate(timeout=10)


Do = Callable[..., Any]
Watch = Callable[..., subprocess.Popen[str]]


async def failed(remote: NatsExecutor, text: str = "too bad") -> str:
    task = await remote.enqueue(samples.refuse, text)
    with pytest.raises(ValueError, match=text):
        await task.result(20)
    return task.id


async def completed(remote: NatsExecutor) -> str:
    task = await remote.enqueue(samples.double, 4)
    await task.result(20)
    return task.id


async def settled(remote: NatsExecutor, function: Callable[..., Any], *arguments: object) -> str:
    task = await remote.enqueue(function, *arguments)
    async for status in task.watch():
        if status.settled:
            break
    return task.id


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def state(do: Do, id: str) -> TaskState:
    async def look(remote: NatsExecutor) -> TaskState:
        return (await remote.task(id).status()).state

    return TaskState(do(look))


@pytest.mark.usefixtures("serving")
class TestWithAWorker:
    def test_the_status_of_a_task(self, ask: Asked, do: Do) -> None:
        id = do(completed)
        code, shown, _ = ask("task", id)
        assert code == 0
        assert [line.split()[0] for line in shown.splitlines()] == [
            "task", "state", "attempts", "created", "started", "finished", "worker",
        ]  # fmt: skip
        assert id in shown
        assert "completed" in shown
        code, shown, _ = ask("task", id, "--json")
        assert code == 0
        assert {"id": id, "state": "completed", "attempts": 1}.items() <= json.loads(shown).items()

    def test_results(self, ask: Asked, do: Do) -> None:
        id = do(completed)
        assert ask("task", id, "--result") == (0, "8\n", "")
        assert json.loads(ask("task", id, "--result", "--json")[1]) == {"id": id, "result": 8}

    def test_an_error_as_a_result(self, ask: Asked, do: Do) -> None:
        id = do(failed)
        code, shown, errors = ask("task", id, "--result")
        assert (code, shown) == (1, "")
        assert "samples.py" in errors  # where it was raised
        assert errors.splitlines()[-1] == f"genro-nats: task {id}: builtins:ValueError: too bad"
        code, shown, _ = ask("task", id, "--result", "--json")
        found = json.loads(shown)["error"]
        assert (code, found["type"], found["text"]) == (1, "builtins:ValueError", "too bad")
        assert "samples.py" in found["traceback"]

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("mute", "<repr() of this Mute raised RuntimeError: no words>", None),
            ("long", "<repr() of this int raised ValueError: Exceeds the limit", None),
            ("nan", "[nan, -inf]", ["nan", "-inf"]),
            ("lone", "a\\udcffb", "a\udcffb"),
        ],
    )
    def test_results_that_are_hard_to_show(
        self, name: str, text: str, value: object, ask: Asked, do: Do
    ) -> None:
        id = do(lambda remote: settled(remote, samples.odd, name))
        code, shown, errors = ask("task", id, "--result")
        assert (code, errors) == (0, "")
        assert shown.startswith(text)
        code, shown, errors = ask("task", id, "--result", "--json")
        assert (code, errors) == (0, "")
        result = json.loads(shown, parse_constant=_refuse_constant)["result"]
        assert result == value if value is not None else result.startswith(text)

    @pytest.mark.parametrize(
        ("name", "type", "text"),
        [
            ("mute", "tests.cli.samples:MuteError", "<str() of this MuteError raised RuntimeError>"),
            ("long", "builtins:ValueError", "<str() of this ValueError raised ValueError>"),
            ("found", "genro_nats.errors:TaskNotFoundError", "mine"),
        ],
    )
    def test_errors_that_are_hard_to_show(self, name: str, type: str, text: str, ask: Asked, do: Do) -> None:
        id = do(lambda remote: settled(remote, samples.trouble, name))
        code, shown, errors = ask("task", id, "--result")
        assert (code, shown) == (1, "")
        assert errors.splitlines()[-1] == f"genro-nats: task {id}: {type}: {text}"
        code, shown, errors = ask("task", id, "--result", "--json")
        assert (code, errors) == (1, "")
        found = json.loads(shown)["error"]
        assert (found["type"], found["text"]) == (type, text)
        assert "in trouble" in found["traceback"]

    def test_progress_that_cannot_be_shown(self, ask: Asked, do: Do, watch: Watch, tmp_path: Path) -> None:
        async def begin(remote: NatsExecutor) -> str:
            return (await remote.enqueue(samples.advance_mute, str(tmp_path))).id

        id = do(begin)
        watcher = watch(id, "--json")
        shown = _until_half(watcher)
        (tmp_path / "release").touch()
        rest, errors = watcher.communicate(timeout=20)
        assert (watcher.returncode, errors) == (0, "")
        told = [line["progress"] for line in json_lines(shown + rest) if line["progress"]]
        assert told[-1]["data"].startswith("<repr() of this Mute raised RuntimeError")
        code, shown, _ = ask("task", id, "--json")
        assert (code, json.loads(shown)["progress"]) == (0, told[-1])

    def test_a_result_that_is_not_there_in_time(self, ask: Asked, do: Do, tmp_path: Path) -> None:
        async def begin(remote: NatsExecutor) -> str:
            return (await remote.enqueue(samples.advance, str(tmp_path))).id

        id = do(begin)
        code, shown, errors = ask("task", id, "--result", "--timeout", "200ms")
        assert (code, shown) == (1, "")
        assert errors.startswith(f"genro-nats: Task {id} was not settled within 0.2 s")
        (tmp_path / "release").touch()
        assert ask("task", id, "--result") == (0, "released\n", "")

    def test_lists(self, ask: Asked, do: Do) -> None:
        id, good = do(failed), do(completed)
        code, shown, _ = ask("tasks", "--state", "failed")
        assert code == 0
        assert shown.split("\n")[0].split()[:3] == ["task", "state", "attempts"]
        assert id in shown
        assert good not in shown
        assert "ValueError: too bad" in shown
        ids = {status["id"]: status["state"] for status in json.loads(ask("tasks", "--json")[1])}
        assert (ids[id], ids[good]) == ("failed", "completed")
        one = ask("tasks", "--limit", "1")[1]
        assert len(one.splitlines()) == 3
        assert "--limit is 1" in one

    def test_a_running_task_is_cancelled(self, ask: Asked, do: Do, tmp_path: Path) -> None:
        async def begin(remote: NatsExecutor) -> str:
            return (await remote.enqueue(samples.advance, str(tmp_path))).id

        id = do(begin)
        until((tmp_path / "started").exists)
        assert ask("cancel", id) == (0, f"Task {id} is cancelled.\n", "")
        assert state(do, id) is TaskState.CANCELLED
        code, shown, _ = ask("cancel", id, "--json")
        assert (code, json.loads(shown)) == (0, {"id": id, "cancelled": True, "state": "cancelled"})

    def test_what_has_ended_is_not_cancelled(self, ask: Asked, do: Do) -> None:
        id = do(completed)
        code, shown, errors = ask("cancel", id)
        assert (code, shown) == (1, "")
        assert errors == f"genro-nats: Task {id} is completed already: there is nothing left to cancel.\n"

    def test_dead_letters_are_listed_and_dropped(self, ask: Asked, do: Do) -> None:
        id = do(failed)
        code, shown, _ = ask("dead")
        assert code == 0
        (line,) = [line for line in shown.splitlines() if line.startswith(id)]
        assert "tests.cli.samples:refuse" in line
        assert "failed after 1 attempt" in line
        letters = {letter["id"]: letter for letter in json.loads(ask("dead", "--json")[1])}
        assert letters[id]["error"] == "builtins:ValueError: too bad"
        assert ask("dead", "drop", id) == (0, f"Dead letter {id} is dropped.\n", "")
        code, _, errors = ask("dead", "drop", id)
        assert code == 1
        assert errors.startswith(f"genro-nats: There is no dead letter '{id}'")
        assert id not in ask("dead")[1]

    @pytest.mark.parametrize("line", [("retry",), ("dead", "replay")])
    def test_a_failed_task_runs_again(self, line: tuple[str, ...], ask: Asked, do: Do) -> None:
        id = do(failed)
        code, shown, _ = ask(*line, id)
        assert code == 0
        again = shown.split()[-1]
        assert shown == f"{id} runs again as task {again}\n"
        assert ask("task", again, "--result")[0] == 1  # it fails again
        assert id not in ask("dead")[1]
        code, _, errors = ask(*line, id)
        assert (code, "was dropped or replayed" in errors) == (1, True)

    def test_only_failed_tasks_run_again(self, ask: Asked, do: Do) -> None:
        code, _, errors = ask("retry", do(completed))
        assert (code, "is completed: only failed tasks" in errors) == (1, True)
        code, _, errors = ask("retry", "nobody")
        assert (code, "no task and no dead letter 'nobody'" in errors) == (1, True)

    def test_watching_shows_each_change(self, do: Do, watch: Watch, tmp_path: Path) -> None:
        async def begin(remote: NatsExecutor) -> str:
            return (await remote.enqueue(samples.advance, str(tmp_path))).id

        id = do(begin)
        watchers = [watch(id), watch(id, "--json")]
        begun = [_until_half(watcher) for watcher in watchers]
        (tmp_path / "release").touch()
        ended = [watcher.communicate(timeout=20) for watcher in watchers]
        assert [
            (watcher.returncode, errors) for watcher, (_, errors) in zip(watchers, ended, strict=True)
        ] == [(0, "")] * 2
        plain, objects = ((first + rest).splitlines() for first, (rest, _) in zip(begun, ended, strict=True))
        assert "running    attempt 1  50% half the way" in plain
        assert plain[-1].startswith("completed  attempt 1")
        (last,) = json_lines(objects[-1])
        assert (last["id"], last["state"]) == (id, "completed")

    def test_watching_a_failure_is_exit_code_1(self, ask: Asked, do: Do) -> None:
        code, shown, _ = ask("task", do(failed), "--watch")
        assert (code, shown) == (1, "failed     attempt 1  builtins:ValueError: too bad\n")

    def test_on_a_terminal_there_is_a_progress_bar(self, do: Do, watch: Watch, tmp_path: Path) -> None:
        async def begin(remote: NatsExecutor) -> str:
            return (await remote.enqueue(samples.advance, str(tmp_path))).id

        id = do(begin)
        ours, theirs = pty.openpty()
        watcher = watch(id, stdout=theirs)
        os.close(theirs)
        shown = b""
        while b"half the way" not in shown:
            shown += os.read(ours, 4096)
        assert b"50%" in shown
        assert "━".encode() in shown
        (tmp_path / "release").touch()
        while b"completed" not in shown:
            shown += os.read(ours, 4096)
        _, errors = watcher.communicate(timeout=20)
        os.close(ours)
        assert (watcher.returncode, errors) == (0, "")

    def test_ctrl_c_leaves_without_a_word(self, do: Do, watch: Watch, tmp_path: Path) -> None:
        async def begin(remote: NatsExecutor) -> str:
            return (await remote.enqueue(samples.advance, str(tmp_path))).id

        id = do(begin)
        watcher = watch(id)
        assert watcher.stdout is not None
        assert "running" in watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        _, errors = watcher.communicate(timeout=20)
        assert (watcher.returncode, errors) == (130, "")
        (tmp_path / "release").touch()
        assert do(lambda remote: remote.task(id).result(20)) == "released"

    def test_nobody_knows_that_task(self, ask: Asked) -> None:
        for line in (
            ("task", "none"),
            ("task", "none", "--watch"),
            ("task", "none", "--result"),
            ("cancel", "none"),
        ):
            code, shown, errors = ask(*line)
            assert (code, shown) == (1, "")
            assert errors.startswith("genro-nats: No task 'none' is known to this pool")
            assert errors.count("\n") == 1


def _until_half(watcher: subprocess.Popen[str]) -> str:
    assert watcher.stdout is not None
    shown = ""
    while "half the way" not in shown:
        line = watcher.stdout.readline()
        assert line, "it ended too soon"
        shown += line
    return shown


def test_schedules_are_listed_and_removed(ask: Asked, do: Do) -> None:
    async def store(remote: NatsExecutor) -> None:
        double = remote(samples.double)
        await double.schedule("nightly", cron="0 3 * * *", timezone="Europe/Rome", args=(1,))
        await double.schedule("often", every=3600, args=(1,))

    assert ask("schedules", subject="unserved")[1] == "No schedules.\n"
    do(store, "unserved")
    shown = ask("schedules", subject="unserved")[1].splitlines()
    assert "0 3 * * * (Europe/Rome)  tests.cli.samples:double" in shown[1]
    assert shown[2].startswith("often     every 3600 s")
    found = json.loads(ask("schedules", "--json", subject="unserved")[1])
    assert [each["cron"] for each in found] == ["0 3 * * *", None]
    removed = ask("schedules", "remove", "nightly", subject="unserved")
    assert removed == (0, "Schedule nightly is removed.\n", "")
    code, _, errors = ask("schedules", "remove", "nightly", subject="unserved")
    assert (code, "There is no schedule 'nightly'" in errors) == (1, True)
    assert "nightly" not in ask("schedules", subject="unserved")[1]


def test_cancelling_without_a_worker_says_that_one_is_needed(ask: Asked, do: Do) -> None:
    async def begin(remote: NatsExecutor) -> str:
        return (await remote.enqueue(samples.double, 1)).id

    id = do(begin, "deserted")
    begun = time.monotonic()
    code, _, errors = ask("cancel", id, "--timeout", "200ms", subject="deserted")
    assert time.monotonic() - begun < 10
    assert code == 1
    assert f"Task {id} is still pending after 0.2 s" in errors
    assert ask("tasks", "--state", "pending", subject="deserted")[1].count(id) == 1


async def _enqueue_one(options: dict[str, Any]) -> None:
    async with NatsExecutor("one", **options) as remote:
        await remote.enqueue(samples.double, 4)


def test_a_pool_from_the_worker_s_file(
    home: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(
        '[worker]\nurl = "embedded"\nprefix = "filed"\n'
        '[pools.one]\nlease = "20s"\nstorage = "memory"\n[pools.two]\n',
        "utf-8",
    )
    assert main(["tasks", "--config", str(file)]) == 2
    assert "Which pool? Give one --subject, of tasks.one, tasks.two" in capsys.readouterr().err
    assert main(["tasks", "--config", str(file), "--subject", "tasks.one"]) == 0
    assert capsys.readouterr().out == "No tasks.\n"
    stated = {"url": "embedded", "prefix": "filed", "subject": "tasks.one", "storage": "memory", "lease": 20}
    asyncio.run(_enqueue_one(stated))
    # What the file says of the pool's streams counts: without it they are other ones.
    line = ["tasks", "--url", "embedded", "--prefix", "filed", "--subject", "tasks.one"]
    assert main(line) == 2
    assert "storage='file'; found storage='memory'" in capsys.readouterr().err
    assert main([*line, "--storage", "memory", "--lease", "20s"]) == 0


def test_no_server_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["tasks", "--subject", "a", "--url", "nats://127.0.0.1:9", "--connect-timeout", "300ms"]
    assert main(line) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "127.0.0.1:9" in shown.err
