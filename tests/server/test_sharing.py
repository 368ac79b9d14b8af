"""Several processes and one server: they agree on it, and it ends with its owner."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from genro_nats.errors import ConfigurationError, TransportError
from genro_nats.server import EmbeddedServer, embedded_connection, running_embedded
from genro_nats.server.lock import is_locked
from genro_nats.server.state import ServerState, read_info
from tests.server.conftest import Other, client, gone, until

START = """
import sys
from pathlib import Path
from genro_nats.server import EmbeddedServer
server = EmbeddedServer(directory=Path(sys.argv[1]))
print("up", flush=True)
sys.stdin.readline()
server.start()
print(server.pid, server.port, server.owned, flush=True)
sys.stdin.readline()
server.stop()
print("stopped", flush=True)
"""

FORKING = """
import os, sys, time
from pathlib import Path
from genro_nats.server import EmbeddedServer
server = EmbeddedServer(directory=Path(sys.argv[1])).start()
stopping = os.fork()
if stopping == 0:
    server.stop()
    os._exit(0)
os.waitpid(stopping, 0)
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(0)
print(server.pid, child, flush=True)
sys.stdin.readline()
"""

Start = Callable[..., Other]


def started(process: Other) -> tuple[int, int, bool]:
    pid, port, owned = process.line().split()
    return int(pid), int(port), owned == "True"


def test_a_second_process_joins_and_does_not_stop_it(tmp_path: Path, other: Start) -> None:
    with EmbeddedServer(directory=tmp_path / "d") as server:
        second = other(START, tmp_path / "d")
        assert second.line() == "up"
        second.go_on()
        assert started(second) == (server.pid, server.port, False)
        second.go_on()
        assert second.line() == "stopped"
        assert second.process.wait(10) == 0
        assert server.running and client(server)


def test_processes_that_start_at_once_agree(tmp_path: Path, other: Start) -> None:
    several = [other(START, tmp_path / "d") for _ in range(4)]
    assert [process.line() for process in several] == ["up"] * 4
    for process in several:
        process.go_on()
    found = [started(process) for process in several]
    assert len({(pid, port) for pid, port, _ in found}) == 1
    assert sorted(owned for _, _, owned in found) == [False, False, False, True]


def test_threads_that_start_at_once_agree(tmp_path: Path) -> None:
    servers = [EmbeddedServer(directory=tmp_path / "d") for _ in range(4)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({server.pid for server in servers}) == 1
    assert sum(server.owned for server in servers) == 1
    for server in servers:
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_owner_is_killed(tmp_path: Path, other: Start, number: signal.Signals) -> None:
    owner = other(START, tmp_path / "d")
    assert owner.line() == "up"
    owner.go_on()
    pid, _, owned = started(owner)
    assert owned and not gone(pid)
    joined = running_embedded(tmp_path / "d")
    assert joined is not None and joined.pid == pid and not joined.owned
    assert not joined.wait(0.01)
    owner.process.send_signal(number)
    until(lambda: gone(pid), 2)
    assert joined.wait(2) and not joined.running


def test_a_server_that_hangs_is_killed_with_its_owner(tmp_path: Path, other: Start) -> None:
    owner = other(START, tmp_path / "d")
    owner.go_on()
    assert owner.line() == "up"
    pid, _, _ = started(owner)
    os.kill(pid, signal.SIGSTOP)
    owner.process.kill()
    assert until(lambda: gone(pid), 3) > 0.5


def test_forked_children_neither_stop_it_nor_keep_it_alive(tmp_path: Path, other: Start) -> None:
    owner = other(FORKING, tmp_path / "d")
    pid, child = map(int, owner.line().split())
    try:
        joined = running_embedded(tmp_path / "d")
        assert joined is not None and joined.pid == pid
        owner.process.kill()
        until(lambda: gone(pid), 2)
        assert not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_new_owner_follows_a_killed_one_at_once(tmp_path: Path, other: Start) -> None:
    owner = other(START, tmp_path / "d")
    owner.go_on()
    assert owner.line() == "up"
    pid, _, _ = started(owner)
    owner.process.kill()
    owner.process.wait(10)
    with EmbeddedServer(directory=tmp_path / "d") as server:
        # Its files, and so its locks, are closed a moment before it is gone.
        until(lambda: gone(pid), 1)
        assert server.owned and client(server)


def test_a_server_whose_owner_is_gone_is_not_joined_though_it_answers(tmp_path: Path, other: Start) -> None:
    owner = other(START, tmp_path / "d")
    owner.go_on()
    assert owner.line() == "up"
    pid, port, _ = started(owner)
    guard = psutil.Process(pid).parent()
    assert guard is not None
    (watcher,) = [one for one in guard.children() if one.pid != pid]
    watcher.suspend()
    owner.process.kill()
    owner.process.wait(10)
    assert read_info(port, 1) is not None
    assert running_embedded(tmp_path / "d") is None
    with pytest.raises(TransportError, match="does not answer"):
        EmbeddedServer(directory=tmp_path / "d").start(timeout=0.1)
    watcher.resume()
    with EmbeddedServer(directory=tmp_path / "d") as server:
        assert server.owned and server.pid != pid


def test_a_server_that_is_being_restarted_is_waited_for(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "d") as server:
        first = server.pid
        os.kill(first, signal.SIGSTOP)
        with ThreadPoolExecutor() as threads:
            restarting = threads.submit(server.restart)
            until(lambda: is_locked(tmp_path / "d" / "start.lock"), 5)
            finding = threads.submit(running_embedded, tmp_path / "d")
            os.kill(first, signal.SIGCONT)
            restarting.result(10)
            found = finding.result(10)
        assert found is not None and found.pid == server.pid != first


def test_a_stale_record_is_replaced_though_its_port_answers(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "d") as server:
        record = (tmp_path / "d" / "server.json").read_text()
    stale = ServerState(**json.loads(record))
    with socket.create_server(("127.0.0.1", stale.port)) as forger:
        (tmp_path / "d" / "server.json").write_text(record)

        def answer() -> None:
            while True:
                try:
                    connection, _ = forger.accept()
                except OSError:
                    return
                connection.sendall(b'INFO {"server_name":"%s"}\r\n' % stale.name.encode())
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert running_embedded(tmp_path / "d") is None
        with server.start():
            assert server.owned and server.port != stale.port and client(server)
        forger.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}', "\x00"])
def test_a_broken_record_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "server.json").write_text(text)
    with EmbeddedServer(directory=tmp_path / "d", jetstream=False) as server:
        found = running_embedded(tmp_path / "d")
        assert found is not None and found.pid == server.pid


def test_without_reuse_a_running_one_is_an_error(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "d", reuse=False) as server:
        with pytest.raises(ConfigurationError, match=rf"pid {server.pid}.*reuse=True"):
            EmbeddedServer(directory=tmp_path / "d", reuse=False).start()
        assert server.running


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"port": 1}, "not at port 1"),
        ({"max_payload": 2**30}, "max_payload is only"),
        ({"monitoring": True}, "without monitoring"),
        ({"jetstream": True}, "without JetStream"),
    ],
)
def test_a_running_one_that_is_not_as_asked_is_an_error(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    with (
        EmbeddedServer(directory=tmp_path / "d", jetstream=False),
        pytest.raises(ConfigurationError, match=text),
    ):
        EmbeddedServer(directory=tmp_path / "d", **{"jetstream": False, **options}).start()


def test_a_joined_one_can_not_be_ended(tmp_path: Path) -> None:
    with (
        EmbeddedServer(directory=tmp_path / "d") as server,
        EmbeddedServer(directory=tmp_path / "d") as joined,
    ):
        for act in (joined.kill, joined.restart):
            with pytest.raises(ConfigurationError, match="only the process that started"):
                act()
        assert server.running


def test_two_servers_never_share_a_store(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path / "a", store_dir=tmp_path / "s"):
        with pytest.raises(ConfigurationError, match=r"store .* is in use by the server of .*/a:"):
            EmbeddedServer(directory=tmp_path / "b", store_dir=tmp_path / "s").start(timeout=0.2)
        assert running_embedded(tmp_path / "b") is None
    with EmbeddedServer(directory=tmp_path / "b", store_dir=tmp_path / "s") as second:
        assert second.owned


def test_the_shared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRO_NATS_HOME", str(tmp_path / "home"))
    assert running_embedded() is None and not (tmp_path / "home").exists()
    first, second = embedded_connection(), embedded_connection()
    try:
        assert (first.owned, second.owned) == (True, False) and first.url == second.url
        found = running_embedded()
        assert found is not None and found.password == first.password and client(found)
    finally:
        second.stop()
        assert first.running
        first.stop()
