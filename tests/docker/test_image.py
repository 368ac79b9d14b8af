"""The image of a worker: small, without secrets or caches, its user nobody special, its process 1 an init."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.docker.engine import run

LIMIT = 60_000_000  # bytes on top of the Python image
BASE = os.environ.get("PYTHON_IMAGE") or "python:3.13-slim"


def inspected(image: str) -> dict[str, Any]:
    (facts,) = json.loads(run("docker", "image", "inspect", image))
    assert isinstance(facts, dict)
    return facts


def said(tag: str, script: str) -> str:
    """What a shell prints in a fresh container."""
    return run("docker", "run", "--rm", "--entrypoint", "sh", f"genro-nats-worker:{tag}", "-c", script)


def test_it_adds_at_most_60_mb_to_python(tag: str) -> None:
    added = inspected(f"genro-nats-worker:{tag}")["Size"] - inspected(BASE)["Size"]
    print(f"the image takes {added / 1e6:.1f} MB on top of {BASE}")
    assert 0 < added <= LIMIT


def test_it_runs_as_nobody_special(tag: str) -> None:
    assert inspected(f"genro-nats-worker:{tag}")["Config"]["User"] == "worker"
    assert said(tag, "id -u; touch /opt/worker/x /srv/worker/x 2>/dev/null || echo refused").split() == [
        "10001",
        "refused",
    ]


def test_it_holds_no_caches_and_no_addresses(tag: str) -> None:
    caches = "find / -xdev \\( -path '*/.cache/pip' -o -path '*/apt/lists/*_Packages*' \\) | wc -l"
    before = run("docker", "run", "--rm", "--entrypoint", "sh", BASE, "-c", caches)
    assert said(tag, caches) == before
    history = run("docker", "history", "--no-trunc", f"genro-nats-worker:{tag}")
    assert "INDEX_URL" not in history + json.dumps(inspected(f"genro-nats-worker:{tag}")["Config"]["Env"])


def test_process_1_reaps_and_hands_signals_on(tag: str) -> None:
    # An orphan's death is process 1's to notice: what it doesn't reap stays as a zombie.
    script = (
        "import os, subprocess, time\n"
        "subprocess.run(['sh', '-c', 'sleep 0.2 & exit'])\n"
        "time.sleep(1)\n"
        "states = [open(f'/proc/{p}/stat').read().split()[2] for p in os.listdir('/proc') if p.isdigit()]\n"
        "print(states.count('Z'), open('/proc/1/comm').read())\n"
    )
    entry = inspected(f"genro-nats-worker:{tag}")["Config"]["Entrypoint"]
    assert entry == ["tini", "--", "genro-nats"]
    command = ("--entrypoint", "tini", f"genro-nats-worker:{tag}", "--", "python", "-c", script)
    assert run("docker", "run", "--rm", *command).split() == ["0", "tini"]
