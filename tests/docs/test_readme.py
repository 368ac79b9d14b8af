"""The examples of the README and of the pages behind it run as they stand."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from genro_nats import NatsExecutor
from genro_nats.cli.arguments import CommandParser
from genro_nats.config import ConfigSource
from genro_nats.testing import NatsServer, WorkerFactory
from tests.secured import SecuredServer

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tasks.md", "docs/fleet.md", "docs/security.md", "docs/performance.md")
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)
FILES = {match[1]: block for block in PYTHON if (match := re.match(r"# (\w+\.py)\n", block))}


def run(directory: Path, script: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, script],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]), **more},
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
    (block,) = [block for block in PYTHON if "numbers.stream" in block]
    (tmp_path / "demo.py").write_text(block)
    lines = run(tmp_path, "demo.py").splitlines()
    assert lines == ["page 1 of 1", "1 pages", "7", "0", "1", "2", "CallTimeoutError", "1 pages 4"]


DURABLE = """\
completed 1 page 3 of 3
3 pages, attempt 1
scheduled True
True True
2 pages, attempt 1
3
['nightly: 0 3 * * * (Europe/Rome)']
True
a report needs pages
[1]
reports.render failed after 1 attempt 1
True False
"""


LATER = "3 pages, attempt 1\ncompleted\nTrue\n"


def test_durable_tasks_in_a_local_pool(shop: Path) -> None:
    assert run(shop, "durable.py") == DURABLE
    assert run(shop, "later.py") == LATER


def test_durable_tasks_on_a_worker(
    shop: Path, nats_server: NatsServer, nats_worker: WorkerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(shop)
    nats_worker("tasks.reports", prefix="durable", imports=("reports",), max_workers=1)
    where = {"kind": "nats", **nats_server.options, "prefix": "durable"}
    assert run(shop, "durable.py", GENRO_POOL_REPORTS=json.dumps(where)) == DURABLE
    assert run(shop, "later.py", GENRO_POOL_REPORTS=json.dumps(where)) == LATER


def test_names_only(
    shop: Path, nats_server: NatsServer, nats_worker: WorkerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = re.findall(r"^\$ genro-nats worker (.*only-registered.*)$", TEXT, re.M)
    parser = CommandParser(prog="worker")
    import_module("genro_nats.cli.worker").add_arguments(parser)
    assert parser.parse_args(line.split()).only_registered
    monkeypatch.syspath_prepend(shop)
    nats_worker("tasks.orders", prefix="names", imports=("orders",), only_registered=True, max_workers=1)
    where = {"kind": "nats", **nats_server.options, "prefix": "names"}
    assert run(shop, "trusting.py", GENRO_POOL_ORDERS=json.dumps(where)).split() == [
        "10.00",
        "function",
        "CodecError",
    ]


def test_the_task_manager(shop: Path) -> None:
    assert run(shop, "managed.py").splitlines() == [
        "2 pages, attempt 1 False",
        "[<TaskState.COMPLETED: 'completed'>]",
    ]


def test_the_commands_about_tasks_exist() -> None:
    lines = re.findall(r"^\$ genro-nats (.*?)(?: +#.*)?$", TEXT, re.M)
    about = [line for line in lines if "tasks.reports" in line]
    assert len(about) == 6
    for line in about:
        name, *arguments = line.split()
        parser = CommandParser(prog=name)
        import_module(f"genro_nats.cli.{name}").add_arguments(parser)
        assert parser.parse_args(arguments).subject == ["tasks.reports"]


def test_the_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands as they stand, but for the port."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\$ genro-nats (.*nats(?: |/).*)$", TEXT.split("## Who may do what")[1], re.M)
    init, worker = (line.split() for line in lines[:2])
    with SecuredServer(Path(init[2]), *init[3:], prefix="genro") as server:
        assert set(worker) >= {"--nkey", "nats/worker.nk"} and Path("nats/worker.nk").is_file()
        assert init[4] == worker[worker.index("--subject") + 1]
        factory = WorkerFactory(server.options("worker"))
        try:
            factory(init[4], max_workers=1, spares=0)
            pool = NatsExecutor("web", subject=init[4], **server.options("web"))
            assert pool(len).call([1]) == 1
            asyncio.run(pool.aclose())
        finally:
            factory.stop()


def test_the_mixin(tmp_path: Path) -> None:
    (block,) = [block for block in PYTHON if "ExecutorMixin" in block]
    (tmp_path / "server.py").write_text(block + "\nprint(Server().executors)\n")
    assert "ExecutorRegistry" in run(tmp_path, "server.py")


def test_the_toml_parses() -> None:
    for block in re.findall(r"```toml\n(.*?)```", TEXT, re.S):
        assert tomllib.loads(block)["executors"]


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, "docs/architecture.md"):
        for link in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", (ROOT / page).read_text()):
            file = ((ROOT / page).parent / link[0]).resolve() if link[0] else ROOT / page
            assert file.is_file(), f"{page}: {link[0]}"
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert not link[1] or link[1] in anchors, f"{page}: #{link[1]}"


def test_every_command_exists() -> None:
    lines = re.findall(r"^\$ (?:\S+=\S+ )?genro-nats (.*?)(?: +#.*)?$", TEXT, re.M)
    assert len(lines) > 15
    for line in lines:
        name, *arguments = line.split()
        if arguments and f"{name} {arguments[0]}" == "auth key":
            name, arguments = "auth_key", arguments[1:]
        parser = CommandParser(prog=name)
        import_module(f"genro_nats.cli.{name}").add_arguments(parser)
        parser.parse_args(arguments)  # raises if it does not


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 320
