"""Pools on genro-asgi servers that run under uvicorn, with real workers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from genro_asgi.wsx import WsxEnvelope
from websockets.sync.client import connect

from tests.integrations.conftest import LIMIT, RunningSite, until

Start = Callable[..., RunningSite]

LOCAL: dict[str, Any] = {"kind": "process", "max_workers": 2}
TIGHT: dict[str, Any] = {"kind": "process", "max_workers": 1, "max_pending": 1, "overload": "fail"}


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def heavy(subject: str) -> dict[str, Any]:
    return {"kind": "nats", "subject": subject, "connect_timeout": 5}


def message(site: RunningSite, path: str, /, **data: Any) -> WsxEnvelope:
    """What a websocket message to that path is answered."""
    with connect(site.url.replace("http", "ws"), open_timeout=LIMIT, close_timeout=LIMIT) as socket:
        socket.send(WsxEnvelope(id="1", method="WSK", path=path, data=data).encode())
        answer = socket.recv(LIMIT)
        assert isinstance(answer, str)
        return WsxEnvelope(answer)


def test_handlers_call_local_and_remote_pools(site: Start, nats: str, worker: str) -> None:
    running = site({"local": LOCAL, "heavy": heavy(worker)}, NATS_URL=nats).ready()
    server = psutil.Process(running.process.pid)
    own = {child.pid for child in server.children(recursive=True)}
    assert own, "pools start with the lifespan"
    for path in ("double", "double_blocking"):
        local = running.get(path, pool="local", x=21).json()
        remote = running.get(path, pool="heavy", x=21).json()
        assert (local["value"], remote["value"]) == (42, 42)
        assert local["pid"] in own
        assert remote["pid"] not in own | {server.pid}
    assert running.get("mapped", pool="heavy", n=3).json() == {"items": [0, 2, 4]}
    assert running.get("streamed", pool="heavy", n=3).json() == {"items": [0, 1, 2]}
    assert running.get("figures").json() == {
        "local": {"mode": "process", "pending": 0},
        "heavy": {"mode": "nats", "pending": 0},
    }


@pytest.mark.parametrize("how", ["uvicorn", "serve"])
def test_a_pool_that_cannot_start_fails_the_boot(site: Start, how: str) -> None:
    pools = {"local": LOCAL, "heavy": {"kind": "nats", "url": "nats://127.0.0.1:1", "connect_timeout": 0.3}}
    running = site(pools, how)
    assert running.ended() == 3
    assert "(in executor 'heavy')" in running.said
    assert "nats://127.0.0.1:1" in running.said
    assert "Application startup failed. Exiting." in running.said
    assert "Traceback" not in running.said


def test_overload_no_workers_and_deadlines_have_their_status(
    site: Start, nats: str, worker: str, tmp_path: Path, clients: ThreadPoolExecutor
) -> None:
    gate = tmp_path / "gate"
    running = site(
        {"tight": TIGHT, "none": heavy("tasks.none"), "heavy": heavy(worker)}, NATS_URL=nats
    ).ready()
    first = clients.submit(running.get, "gate", pool="tight", path=gate)
    until(lambda: running.pending("tight") == 1)

    for path, pool, query in (("double", "tight", {"x": 1}), ("double_blocking", "tight", {"x": 1})):
        full = running.get(path, pool=pool, **query)
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        assert full.json() == {"error": "Executor 'tight' has 1 pending tasks."}
    for path, query in (("mapped", {"n": 1}), ("streamed", {"n": 1})):
        assert running.get(path, pool="tight", **query).status_code == 429
    assert running.get("caught", pool="tight").json() == {
        "caught": "Executor 'tight' has 1 pending tasks.",
        "pool": "tight",
        "limit": 1,
    }
    for path, query in (("double", {"x": 1}), ("streamed", {"n": 1})):
        nobody = running.get(path, pool="none", **query)
        assert (nobody.status_code, nobody.headers["retry-after"]) == (503, "2")
        assert "No worker serves 'tasks.none'" in nobody.json()["error"]
    late = running.get("late", pool="heavy", path=tmp_path / "other gate")
    assert (late.status_code, "0.2 s" in late.json()["error"]) == (504, True)

    gate.touch()
    assert first.result(LIMIT).status_code == 200


def test_websocket_messages_have_their_status_too(
    site: Start, nats: str, worker: str, tmp_path: Path, clients: ThreadPoolExecutor
) -> None:
    gate = tmp_path / "gate"
    running = site(
        {"tight": TIGHT, "none": heavy("tasks.none"), "heavy": heavy(worker)}, NATS_URL=nats
    ).ready()
    first = clients.submit(running.get, "gate", pool="tight", path=gate)
    until(lambda: running.pending("tight") == 1)
    full = message(running, "/double", pool="tight", x=1)
    nobody = message(running, "/double", pool="none", x=1)
    late = message(running, "/late", pool="heavy", path=str(tmp_path / "other gate"))
    fine = message(running, "/double", pool="heavy", x=21)
    gate.touch()
    assert first.result(LIMIT).status_code == 200
    assert (full.status, full.data) == (429, "Executor 'tight' has 1 pending tasks.")
    assert (nobody.status, late.status) == (503, 504)
    assert (fine.status, fine.data["value"]) == (200, 42)


@pytest.mark.parametrize("how", ["uvicorn", "serve"])
def test_sigterm_under_load_answers_all_and_leaves_nothing(
    site: Start, how: str, nats: str, worker: str, tmp_path: Path, clients: ThreadPoolExecutor
) -> None:
    gate, last_gate, left = tmp_path / "gate", tmp_path / "last gate", tmp_path / "left"
    running = site({"local": LOCAL, "behind": LOCAL, "heavy": heavy(worker)}, how, NATS_URL=nats).ready()
    assert running.get("behind", pool="behind", opened=last_gate, path=left).status_code == 200
    requests = [clients.submit(running.get, "gate", pool=pool, path=gate) for pool in ("local", "heavy") * 5]
    until(lambda: (running.pending("local"), running.pending("heavy")) == (5, 5))
    children = psutil.Process(running.process.pid).children(recursive=True)

    running.process.send_signal(signal.SIGTERM)
    until(lambda: refused(running))
    gate.touch()
    assert [request.result(LIMIT).status_code for request in requests] == [200] * 10
    # All requests are answered: what is left is a call that only the drain waits for.
    until(lambda: "Waiting for application shutdown." in running.said)
    assert running.process.poll() is None
    last_gate.touch()

    assert running.ended() == -signal.SIGTERM, running.said
    assert left.read_text() == "done"
    assert "Application shutdown complete." in running.said
    assert "Traceback" not in running.said
    assert "ERROR" not in running.said
    psutil.wait_procs(children, LIMIT)
    assert children
    assert not any(child.is_running() for child in children)


def test_the_drain_is_bounded(site: Start, tmp_path: Path) -> None:
    never, left = tmp_path / "never", tmp_path / "left"
    running = site({"local": LOCAL}, SITE_DRAIN="0.3").ready()
    assert running.get("behind", pool="local", opened=never, path=left).status_code == 200
    until(lambda: running.pending("local") == 1)
    children = psutil.Process(running.process.pid).children(recursive=True)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(5) == -signal.SIGTERM
    assert "executors not drained within 0.3 s, calls left: local=1" in running.said
    psutil.wait_procs(children, LIMIT)
    assert not any(child.is_running() for child in children)


def refused(running: RunningSite) -> bool:
    """Has it stopped taking requests?"""
    try:
        return running.get("figures").status_code == 503
    except httpx.TransportError:
        return True
