"""The README's examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from genro_nats.config import ConfigSource
from genro_nats.testing import NatsServer, WorkerFactory

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)
FILES = {match[1]: block for block in PYTHON if (match := re.match(r"# (\w+\.py)\n", block))}


def run(directory: Path, script: str) -> str:
    done = subprocess.run(
        [sys.executable, script],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name, block in FILES.items():
        (tmp_path / name).write_text(block)
    return tmp_path


def test_the_first_pool(shop: Path) -> None:
    assert run(shop, "app.py").split() == ["36.6", "1.22", "2.44", "3.66", "1.22"]


def test_the_same_calls_on_a_worker(
    shop: Path, nats_server: NatsServer, nats_worker: WorkerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(shop)
    nats_worker("tasks.heavy", prefix="readme", imports=("shop",), max_workers=1)
    (table,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    table = table.replace('url = "embedded"', f'url = "{nats_server.url}"\nprefix = "readme"')
    for option, value in nats_server.options.items():
        if option not in ("url", "prefix"):
            table += f'{option} = "{value}"\n'
    (shop / "executors.toml").write_text(table)
    assert ConfigSource(shop / "executors.toml").for_pool("heavy").kind == "nats"
    assert run(shop, "app.py").split() == ["36.6", "1.22", "2.44", "3.66", "1.22"]


def test_what_every_pool_does(tmp_path: Path) -> None:
    (block,) = [block for block in PYTHON if "current_call" in block]
    (tmp_path / "demo.py").write_text(block)
    lines = run(tmp_path, "demo.py").splitlines()
    assert lines == ["page 1 of 1", "1 pages", "7", "0", "1", "2", "CallTimeoutError", "1 pages 4"]


def test_the_mixin(tmp_path: Path) -> None:
    (block,) = [block for block in PYTHON if "ExecutorMixin" in block]
    (tmp_path / "server.py").write_text(block + "\nprint(Server().executors)\n")
    assert "ExecutorRegistry" in run(tmp_path, "server.py")


def test_the_toml_parses() -> None:
    for block in re.findall(r"```toml\n(.*?)```", TEXT, re.S):
        assert tomllib.loads(block)["executors"]
