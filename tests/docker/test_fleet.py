"""The compose fleet, by the README's own commands."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import urllib.request
from collections.abc import Callable

from genro_nats import NatsExecutor
from tests.docker.engine import ROOT, run, until
from tests.docker.fleet import Fleet

COMMAND = re.compile(r"^\$ (?:WORKER_TAG=\S+ )?docker compose (.*?)(?: +#.*)?$", re.M)


def test_the_readme_from_up_to_down(tag: str, build: Callable[..., str]) -> None:
    text = (ROOT / "README.md").read_text()
    up, logs, check, rebuild, roll, down = (command.split() for command in COMMAND.findall(text))
    with Fleet(tag) as fleet:
        fleet.compose(*up)
        assert len(fleet.containers("worker")) == 4
        (demo,) = fleet.containers("demo", all=True)
        until(lambda: fleet.state(demo)["Status"] == "exited", 60)
        told = fleet.compose(*logs)
        assert fleet.state(demo)["ExitCode"] == 0, told
        assert "The fleet works." in told
        assert len(re.findall(r"worker \w+ ran \d+ calls", told)) > 1
        assert asyncio.run(hosts(fleet.url, 4)) == {c[:12] for c in fleet.containers("worker")}
        assert "is serving: tasks.heavy, tasks.io" in fleet.compose(check[0], "-T", *check[1:])
        until(lambda: fleet.healthy("worker", 4), 40)
        watched(fleet)

        assert rebuild == ["build", "worker"]
        fleet.variables["WORKER_TAG"] = fresh = build("v2")
        old = set(fleet.containers("worker"))
        fleet.compose(*roll)
        new = fleet.containers("worker")
        assert len(new) == 4
        assert old.isdisjoint(new)
        image = {run("docker", "inspect", "-f", "{{.Config.Image}}", container).strip() for container in new}
        assert image == {f"genro-nats-worker:{fresh}"}
        assert asyncio.run(hosts(fleet.url, 4)) == {container[:12] for container in new}
        fleet.compose(*down)
        for kind in ("container", "volume", "network"):
            label = f"label=com.docker.compose.project={fleet.name}"
            everything = ["-a"] if kind == "container" else []
            assert run("docker", kind, "ls", "-q", *everything, "--filter", label) == ""


async def hosts(url: str, count: int) -> set[str]:
    """Which workers answer to a caller outside, until ``count`` have."""
    found: set[str] = set()
    async with NatsExecutor("outside", subject="tasks.heavy", url=url, workers_timeout=30) as pool:
        async with asyncio.timeout(60):
            while len(found) < count:
                calls = [pool.submit(platform.node) for _ in range(50)]
                found.update(await asyncio.gather(*calls))
        return found


def watched(fleet: Fleet) -> None:
    """Monitoring tells the tale: JetStream on the volume, the workers' connections."""
    base = f"http://127.0.0.1:{fleet.monitoring}"
    with urllib.request.urlopen(f"{base}/jsz", timeout=10) as answer:
        assert json.load(answer)["config"]["store_dir"].startswith("/data")
    with urllib.request.urlopen(f"{base}/connz", timeout=10) as answer:
        names = [connection["name"] for connection in json.load(answer)["connections"]]
    assert sum(name.startswith("genro-nats worker") for name in names) >= 4
