"""``genro-nats worker --check``: 0 while workers serve, 1 whenever one does not."""

from __future__ import annotations

import asyncio
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genro_nats.server import EmbeddedServer
from tests.cli import samples
from tests.cli.conftest import Running, finished, pool, until

ONE = ("--processes", "1", "--spares", "0")


@pytest.fixture
def home() -> Iterator[str]:
    """A short path: a Unix socket's name has some hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="genro-") as directory:
        yield f"{directory}/home"


@pytest.fixture
def begin(start: Callable[..., Running], server: EmbeddedServer, home: str) -> Callable[..., Running]:
    """Start workers of a home of their own, at the server of these tests, which wants a password."""

    def run(*arguments: str, **more: str) -> Running:
        login = {"GENRO_NATS_HOME": home, "GENRO_NATS_PASSWORD": server.password, **more}
        return start("worker", "--url", server.url, "--user", server.user, *ONE, *arguments, **login)

    return run


def check(home: str, *arguments: str) -> tuple[int, str]:
    done = finished("worker", "--check", *arguments, GENRO_NATS_HOME=home)
    return done.returncode, done.stdout + done.stderr


def test_it_is_0_while_all_serve(begin: Callable[..., Running], home: str) -> None:
    assert check(home) == (1, "genro-nats: no worker runs here, for this user\n")
    one, two = begin("--subject", "one"), begin("--subject", "two")
    for worker in (one, two):
        worker.logged("worker.ready")
    code, said = check(home)
    assert code == 0
    assert sorted(line.split(" is ")[1] for line in said.splitlines()) == ["serving: one", "serving: two"]
    assert check(home, "--subject", "none")[0] == 1
    two.process.kill()
    two.process.wait(10)
    code, said = check(home, "--subject", "one")
    assert (code, said.count("\n")) == (0, 1)
    assert len(list(Path(home, "workers").iterdir())) == 1  # what the killed one left is gone
    one.process.send_signal(signal.SIGTERM)
    assert one.ended() == 0
    assert list(Path(home, "workers").iterdir()) == []  # before a check could clean up
    assert check(home)[0] == 1


def test_it_is_1_while_it_starts_and_drains(
    begin: Callable[..., Running], server: EmbeddedServer, home: str, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)\n"
    )
    worker = begin("--subject", "life", "--path", str(tmp_path), "--import", "slow")
    until(lambda: "is starting" in check(home)[1])
    assert check(home)[0] == 1
    (tmp_path / "go").touch()
    worker.logged("worker.ready")
    assert check(home)[0] == 0

    async def hold() -> Any:
        async with pool(server, "life") as remote:
            started, release = tmp_path / "started", tmp_path / "release"
            running = asyncio.create_task(remote.submit(samples.hold, str(started), str(release)))
            await asyncio.to_thread(until, started.exists)
            worker.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(worker.logged, "worker.draining")
            code, said = await asyncio.to_thread(check, home)
            release.touch()
            return code, "is draining: life" in said, await running

    assert asyncio.run(asyncio.wait_for(hold(), 60)) == (1, True, "released")


def test_it_is_1_without_the_server(start: Callable[..., Running], home: str, tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "own") as server:
        login = {"GENRO_NATS_HOME": home, "GENRO_NATS_PASSWORD": server.password}
        arguments = ("--url", server.url, "--user", server.user, "--subject", "alone", *ONE)
        start("worker", *arguments, **login).logged("worker.ready")
        assert check(home)[0] == 0
    until(lambda: "is disconnected: alone" in check(home)[1])
    assert check(home)[0] == 1


def test_one_that_stands_still_is_not_serving(begin: Callable[..., Running], home: str) -> None:
    worker = begin("--subject", "still")
    worker.logged("worker.ready")
    worker.process.send_signal(signal.SIGSTOP)
    code, said = check(home)
    worker.process.send_signal(signal.SIGCONT)
    assert code == 1
    assert "is not answering (timed out)" in said
    until(lambda: check(home)[0] == 0)


def test_where_no_socket_can_be_made_the_worker_serves_and_says_so(
    begin: Callable[..., Running], tmp_path: Path
) -> None:
    far = tmp_path / ("x" * 100)  # longer than a socket's address can be
    worker = begin("--subject", "far", GENRO_NATS_HOME=str(far))
    worker.logged("worker.ready")
    assert "WARNING worker.unchecked" in worker.log
    assert "GENRO_NATS_HOME" in worker.log


def test_others_cannot_ask(begin: Callable[..., Running], home: str) -> None:
    begin("--subject", "private").logged("worker.ready")
    (path,) = Path(home, "workers").iterdir()
    assert path.parent.stat().st_mode & 0o077 == 0
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(path))
        assert b"password" not in asking.recv(65536)
