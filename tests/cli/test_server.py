"""``genro-nats server`` as a real process."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_nats.server import running_embedded
from tests.cli.conftest import Running, finished


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_a_signal(
    number: signal.Signals, start: Callable[..., Running], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    running = start("server", "--json", "--monitoring", GENRO_NATS_HOME=str(home))
    assert running.process.stdout is not None
    facts = json.loads(running.process.stdout.readline())
    server = running_embedded(home)
    assert server is not None
    assert server.url == facts["url"]
    assert facts["monitoring"].startswith("http://127.0.0.1:")
    assert stat.S_IMODE(Path(facts["credentials"]).stat().st_mode) == 0o600
    again = finished("server", GENRO_NATS_HOME=str(home))
    assert again.returncode == 1
    assert f"already runs at {facts['url']}" in again.stderr
    running.process.send_signal(number)
    assert running.ended() == 0
    assert running_embedded(home) is None


def test_it_tells_people_what_to_do_and_no_password(start: Callable[..., Running], tmp_path: Path) -> None:
    home = tmp_path / "home"
    running = start("server", GENRO_NATS_HOME=str(home))
    assert running.process.stdout is not None
    shown = running.process.stdout.readline()
    server = running_embedded(home)
    assert server is not None
    running.process.send_signal(signal.SIGINT)
    shown += running.process.stdout.read()
    assert server.url in shown
    assert "genro-nats worker --url embedded --subject" in shown
    assert str(home / "server.json") in shown
    assert server.password not in shown


def test_a_server_that_dies_is_an_error(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start("server", "--json", GENRO_NATS_HOME=str(tmp_path / "home"))
    assert running.process.stdout is not None
    os.kill(json.loads(running.process.stdout.readline())["pid"], signal.SIGKILL)
    assert running.ended() == 1
    running.logged("ended by itself")
