"""``genro-nats auth init``: the files, what is printed, and what is refused."""

from __future__ import annotations

import builtins
import json
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from genro_nats.cli.main import main
from genro_nats.server import find_server
from genro_nats.server.secured import SecuredConfig, SecuredUser
from genro_nats.transport.identity import identity_of
from genro_nats.transport.roles import Role, permissions
from tests.cli.conftest import finished
from tests.secured import SecuredServer, auth_init

Capture = pytest.CaptureFixture[str]


def valid(config: Path) -> bool:
    command = [str(find_server()), "-t", "-c", str(config)]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def seeds(directory: Path) -> dict[str, str]:
    return {file.stem: file.read_text().strip() for file in directory.glob("*.nk")}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--subject", "tasks.heavy", "--subject", 'odd"name\\with$x'),
        ("--prefix", "de.up", "--caller", "web", "--caller", "batch", "--worker", "w1", "--worker", "w2"),
        ("--monitoring", "18222", "--host", "0.0.0.0"),
    ],
)
def test_the_server_takes_the_file(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    facts = auth_init(tmp_path / "nats", *arguments)
    assert valid(Path(facts["config"]))


def test_the_server_minds_a_wrong_file(tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    user = SecuredUser("x", "caller", "no key", (), ())
    file.write_text(SecuredConfig("127.0.0.1", 4222, tmp_path, (user,)).render())
    assert not valid(file)


def test_seeds_are_private_and_never_shown(tmp_path: Path, capsys: Capture) -> None:
    assert main(["auth", "init", str(tmp_path / "nats"), "--subject", "tasks.heavy"]) == 0
    shown = capsys.readouterr()
    found = seeds(tmp_path / "nats")
    assert set(found) == {"caller", "worker", "manager", "observer"}
    config = (tmp_path / "nats" / "nats-server.conf").read_text()
    for name, seed in found.items():
        mode = (tmp_path / "nats" / f"{name}.nk").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600 and seed.startswith("SU")
        assert seed not in shown.out + shown.err + config
    assert stat.S_IMODE((tmp_path / "nats").stat().st_mode) == 0o700
    for words in ("nats-server -c", "genro-nats worker --url", "--nkey", "nkey_seed_file="):
        assert words in shown.out


def test_it_overwrites_only_when_told_and_keeps_keys(tmp_path: Path, capsys: Capture) -> None:
    directory = tmp_path / "nats"
    first = auth_init(directory)
    before, config = seeds(directory), (directory / "nats-server.conf").read_text()
    assert main(["auth", "init", str(directory)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (directory / "nats-server.conf").read_text() == config
    second = auth_init(directory, "--force", "--caller", "caller", "--caller", "batch")
    assert {**seeds(directory), **before} == seeds(directory) and len(seeds(directory)) == 5
    made = {user["name"]: user["made"] for user in second["users"]}
    assert made.pop("batch") and not any(made.values()) and all(user["made"] for user in first["users"])
    auth_init(directory, "--force", "--new-keys")
    assert not set(before.values()) & {seeds(directory)[name] for name in before}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--subject", "tasks.*"), "subject"),
        (("--prefix", "$JS"), "prefix"),
        (("--caller", "../up"), "make a name"),
        (("--caller", "one", "--worker", "one"), "'one'"),
        (("--tls-cert", "missing.crt"), "--tls-key"),
        (("--tls-cert", "missing.crt", "--tls-key", "missing.key"), "missing.crt is no file"),
        (("--new-keys",), "--force"),
        (("--port", "70000"), "70000"),
        (("--port", "0"), "--port is 0"),
        (("--port", "-1"), "--port is -1"),
        (("--port", "5000", "--monitoring", "5000"), "both 5000"),
        (("--host", 'a"b'), "--host"),
        (("--host", "127.0.0.1:4222x"), "--host"),
        (("--host", ""), "--host"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, capsys: Capture, arguments: tuple[str, ...], told: str) -> None:
    assert main(["auth", "init", str(tmp_path / "nats"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "nats").exists()


def test_a_seed_that_others_could_read(tmp_path: Path, capsys: Capture) -> None:
    auth_init(tmp_path)
    (tmp_path / "worker.nk").chmod(0o644)
    assert main(["auth", "init", str(tmp_path), "--force"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "others could read it" in line]
    assert "worker.nk" in line
    assert "--new-keys" in line
    assert stat.S_IMODE((tmp_path / "worker.nk").stat().st_mode) == 0o600
    (tmp_path / "caller.nk").chmod(0o640)
    facts = auth_init(tmp_path, "--force")
    assert [user["name"] for user in facts["users"] if user["was_readable_by_others"]] == ["caller"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "nats://[::1]:4222"),
        ("nats.example", "nats://nats.example:4222"),
        ("0.0.0.0", "nats://127.0.0.1:4222"),
    ],
)
def test_the_url(tmp_path: Path, host: str, url: str) -> None:
    assert auth_init(tmp_path / "nats", "--host", host)["url"] == url


def test_a_seed_that_is_none(tmp_path: Path, capsys: Capture) -> None:
    auth_init(tmp_path)
    (tmp_path / "worker.nk").write_text("SUsecretbutbroken")
    assert main(["auth", "init", str(tmp_path), "--force"]) == 2
    shown = capsys.readouterr()
    assert "worker.nk" in shown.err and "SUsecret" not in shown.err + shown.out


def test_without_the_extra(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "nkeys":
            raise ImportError(name)
        return usual(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["auth", "init", str(tmp_path)]) == 2
    assert 'pip install "genro-nats[nkeys]"' in capsys.readouterr().err


def test_a_worker_without_the_right_leaves_and_says_which(tmp_path: Path) -> None:
    with SecuredServer(tmp_path / "nats", "--subject", "jobs") as server:
        options = server.options("caller")
        given = ["--url", options["url"], "--nkey", options["nkey_seed_file"], "--prefix", "sec"]
        done = finished("worker", *given, "--subject", "jobs", "--processes", "1")
        assert done.returncode == 1
        assert "does not allow this user to" in done.stderr and "sec.worker." in done.stderr.lower()
        assert seeds(tmp_path / "nats")["caller"] not in done.stderr + done.stdout


def test_users_are_told_apart(tmp_path: Path) -> None:
    facts = auth_init(tmp_path, "--caller", "web", "--caller", "batch")
    who = {user["name"]: identity_of(user["nkey"]) for user in facts["users"]}
    assert len(set(who.values())) == 5
    assert all(re.fullmatch("[0-9a-f]{8}", token) for token in who.values())
    assert json.loads(json.dumps(facts)) == facts


def test_a_caller_of_all_pools_reads_no_stream_as_a_whole() -> None:
    # Of all pools, a request that names its subject in the body could read everybody's outcomes.
    wide = permissions(Role.CALLER, "genro", user="0a0a0a0a")
    assert "$JS.API.DIRECT.GET.*" not in wide.publish and "$JS.API.DIRECT.GET.*.>" not in wide.publish
    bound = permissions(Role.CALLER, "genro", ["heavy"], user="0a0a0a0a")
    assert not [one for one in bound.publish if one == "$JS.API.DIRECT.GET.genro-heavy-states"]
