"""``genro-nats auth key``, and a worker and a command that are given the keys."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats import NatsExecutor, SignatureError
from genro_nats.cli.main import main
from genro_nats.codec.signing import Keyring, new_key
from genro_nats.server import EmbeddedServer
from tests.cli import samples
from tests.cli.conftest import Running, finished


def test_a_key_is_printed_and_no_two_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["auth", "key", "--id", "mine"]) == 0
    assert main(["auth", "key", "--id", "mine"]) == 0
    first, second = capsys.readouterr().out.split()
    assert first != second
    assert Keyring.parse(first, "x").ids == ("mine",)


def test_keys_are_put_before_or_behind_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    for line in ("--id a", "--id b --last", "--id c"):
        assert main(["auth", "key", "--file", str(path), *line.split()]) == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.parse(path.read_text(), "x").ids == ("c", "a", "b")
    shown = capsys.readouterr().out
    assert shown.endswith("c, a, b; c signs\n")
    assert not any(line.partition(":")[2] in shown for line in path.read_text().split())
    before = path.read_text()
    assert main(["auth", "key", "--file", str(path), "--id", "a"]) == 2  # an id is there already
    assert path.read_text() == before
    assert [it.name for it in tmp_path.iterdir()] == ["keys"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    """Others read the file by its own name."""
    path, link = tmp_path / "keys", tmp_path / "link"
    assert main(["auth", "key", "--file", str(path), "--id", "a"]) == 0
    link.symlink_to(path)
    assert main(["auth", "key", "--file", str(link), "--id", "b"]) == 0
    assert link.is_symlink()
    assert [line.partition(":")[0] for line in path.read_text().splitlines()] == ["b", "a"]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("auth key --id has:colon", "no id of a key"),
        ("auth key --last", "--last needs --file"),
        ("auth key --flie x", "Did you mean '--file'?"),
        ("auth key --file /no/such/place", "can't be changed"),
        ("worker --subject a --key-file /no/such", "key_file '/no/such' can't be read"),
    ],
)
def test_bad_usage_is_one_line(line: str, hint: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = finished(*line.split())
    assert done.returncode == 2, done.stderr
    assert hint in done.stderr
    assert done.stdout == ""


def test_a_worker_and_commands_with_keys(
    start: Callable[..., Running], server: EmbeddedServer, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    assert main(["auth", "key", "--file", str(path), "--id", "k"]) == 0
    config = tmp_path / "worker.toml"
    config.write_text('[worker]\nurl = "embedded"\nkey_file = "keys"\n[pools.keyed]\nsubject = "keyed"\n')
    access = {"url": server.url, "user": server.user, "password": server.password, "subject": "keyed"}
    home = {"GENRO_NATS_HOME": str(server.directory)}
    running = start("worker", "--config", str(config), "--processes", "1", "--spares", "0", **home)
    running.logged("worker.ready")

    async def calls() -> None:
        async with NatsExecutor("with", **access, key_file=str(path)) as pool:
            assert await pool.submit(pow, 2, 10) == 1024
            assert await (await pool.enqueue(pow, 2, 5)).result(timeout=20) == 32
        async with NatsExecutor("without", **access) as pool:
            with pytest.raises(SignatureError, match="GENRO_NATS_KEY"):
                await pool.submit(pow, 2, 10)

    asyncio.run(calls())
    told = "WARNING message.rejected subject=genro.call.keyed reason=unsigned"
    assert told in running.log
    listed = finished("tasks", "--config", str(config), "--json", "--state", "completed", **home)
    assert '"completed"' in listed.stdout, listed.stderr
    key = path.read_text().partition(":")[2].strip()
    assert key not in running.log


@pytest.fixture(scope="module")
def signing(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The key of a pool that has a worker, a task that failed, and a schedule."""
    folder, key = tmp_path_factory.mktemp("signing"), new_key("theirs")
    (folder / "keys").write_text(key)
    pool = ("--url", "embedded", "--prefix", "signing", "--subject", "signed")
    running = Running(
        folder / "log",
        ("worker", *pool, "--processes", "1", "--key-file", str(folder / "keys")),
        GENRO_NATS_HOME=str(server.directory),
    )
    try:
        running.logged("worker.ready")
        asyncio.run(asyncio.wait_for(_fail_and_schedule(server, str(folder / "keys")), 40))
        yield key
    finally:
        running.process.kill()
        running.process.communicate(timeout=10)


async def _fail_and_schedule(server: EmbeddedServer, keys: str) -> None:
    access = {"url": server.url, "user": server.user, "password": server.password, "key_file": keys}
    async with NatsExecutor("signing", prefix="signing", subject="signed", **access) as pool:
        task = await pool.enqueue(samples.refuse, "no")
        with pytest.raises(ValueError, match="no"):
            await task.result(20)
        await pool(samples.double).schedule("yearly", cron="0 0 1 1 *", args=(1,))


Listed = Callable[..., tuple[int, Any, str]]


@pytest.fixture(params=["no key", "unknown key"])
def stranger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """This side has none of the keys, or another one; for which reason messages are refused then."""
    reason: str = request.param
    monkeypatch.setenv("GENRO_NATS_KEY", "" if reason == "no key" else new_key("ours"))
    return reason


@pytest.fixture
def listed(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Listed:
    """Run a command of that pool here: its exit code, what its JSON says, and its errors."""
    monkeypatch.setenv("GENRO_NATS_HOME", str(server.directory))

    def run(line: str) -> tuple[int, Any, str]:
        code = main([*line.split(), "--url", "embedded", "--prefix", "signing", "--json"])
        shown, errors = capsys.readouterr()
        return code, json.loads(shown), errors

    return run


TASK_LISTS = ["tasks --state failed", "tasks", "schedules", "dead"]


@pytest.mark.parametrize("line", TASK_LISTS)
def test_lists_say_how_many_messages_could_not_be_verified(
    line: str, signing: str, stranger: str, listed: Listed
) -> None:
    code, found, errors = listed(f"{line} --subject signed")
    assert (code, found) == (0, [])
    told = rf"note: messages that could not be verified, .*: [1-9]\d* \({stranger}: [1-9]\d*\)\. .*GENRO_NATS_KEY.*\n"
    assert re.fullmatch(told, errors), errors


@pytest.mark.parametrize("line", ["pools", "workers"])
def test_lists_say_that_no_worker_could_be_believed(
    line: str, signing: str, stranger: str, listed: Listed
) -> None:
    code, found, errors = listed(line)
    assert (code, [each["workers"] for each in found]) == ((0, [0]) if line == "pools" else (1, []))
    assert re.fullmatch(r"note: workers are there, but none .*--key-file, GENRO_NATS_KEY.*\n", errors), errors


@pytest.mark.parametrize("line", [*(f"{line} --subject signed" for line in TASK_LISTS), "pools", "workers"])
def test_with_the_key_lists_say_nothing_of_it(
    line: str, signing: str, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRO_NATS_KEY", signing)
    code, found, errors = listed(line)
    assert (code, len(found), errors) == (0, 1, "")


def test_with_a_key_there_is_no_warning(start: Callable[..., Running], tmp_path: Path) -> None:
    away = ("--subject", "a", "--url", "nats://nowhere.invalid:4222", "--connect-timeout", "300ms")
    running = start("worker", *away, GENRO_NATS_KEY=new_key("k"))
    assert running.ended() == 1
    assert "worker.unsigned" not in running.log
