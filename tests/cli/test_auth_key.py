"""``genro-nats auth key``, and a worker and a command that are given the keys."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_nats import NatsExecutor, SignatureError
from genro_nats.cli.main import main
from genro_nats.codec.signing import Keyring, new_key
from genro_nats.server import EmbeddedServer
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


def test_with_a_key_there_is_no_warning(start: Callable[..., Running], tmp_path: Path) -> None:
    away = ("--subject", "a", "--url", "nats://nowhere.invalid:4222", "--connect-timeout", "300ms")
    running = start("worker", *away, GENRO_NATS_KEY=new_key("k"))
    assert running.ended() == 1
    assert "worker.unsigned" not in running.log
