"""The plugin as its users have it: pytest run in a process of its own, on a file of theirs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genro_nats import ExecutorRegistry, InlineExecutor, NatsExecutor
from genro_nats.testing import NatsServer, WorkerFactory
from genro_nats.testing.suite import samples

ROOT = Path(__file__).parents[2]


def run(directory: Path, code: str, *arguments: str) -> str:
    """What pytest says about a file with that code."""
    (directory / "test_theirs.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "test_theirs.py", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
def test_it():
    heavy = {"nats", "cloudpickle", "genro_nats.executor", "genro_nats.config", "genro_nats.server"}
    assert "genro_nats.testing.plugin" in sys.modules
    assert not heavy & set(sys.modules)
"""
    assert "1 passed" in run(tmp_path, code)


def test_the_suite_fails_an_executor_that_breaks_the_contract(tmp_path: Path) -> None:
    code = """
import pytest
from genro_nats import InlineExecutor
from genro_nats.testing.conformance import Can, QuickConformance

class Swallows(InlineExecutor):
    async def invoke(self, *args):
        try:
            return await super().invoke(*args)
        except Exception:
            return None

class TestSwallows(QuickConformance):
    lacks = {Can.RUN_BESIDE: "it is inline", Can.COPY: "it is inline", Can.IMPORT: "it is inline"}

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.fixture
    def make_executor(self):
        return lambda **options: Swallows("bad", **options)
"""
    said = run(tmp_path, code)
    assert "FAILED test_theirs.py::TestSwallows::test_async_functions_raise" in said
    assert "PASSED test_theirs.py::TestSwallows::test_arguments_and_results" in said
    assert "DID NOT RAISE" in said
    assert "can't give the function copies of its arguments: it is inline" in said


def test_the_log_of_a_worker_is_shown_when_a_test_fails(tmp_path: Path) -> None:
    code = """
def test_it(nats_worker):
    worker = nats_worker("logged", max_workers=1)
    assert worker.running is False
"""
    said = run(tmp_path, code)
    assert "1 failed" in said
    assert "Log of worker logged" in said
    assert "worker.ready" in said


def test_inline_executors(inline_executors: ExecutorRegistry) -> None:
    pool = inline_executors.executor("nats", name="heavy", subject="tasks.heavy", timeout=3)
    assert isinstance(pool, InlineExecutor)
    assert pool(samples.where).call() == samples.where()


def test_a_worker_of_a_test(nats_options: dict[str, Any], nats_worker: WorkerFactory, tmp_path: Path) -> None:
    worker = nats_worker(
        "greeted",
        max_workers=1,
        initializer=f"{samples.__name__}:initialise",
        initargs=[str(tmp_path), "hello"],
    )
    pool = NatsExecutor("mine", subject="greeted", **nats_options)
    pid, counts, greeting = pool(samples.initialised).call(str(tmp_path))
    asyncio.run(pool.aclose())
    assert (counts, greeting) == ([1], "hello")
    assert pid not in (worker.pid, os.getpid())
    assert worker.stop() == 0
    assert "worker.drained" in worker.stderr()


def test_workers_do_not_hear_other_tests(nats_server: NatsServer, nats_prefix: str) -> None:
    assert nats_server.options["url"].startswith("nats://")
    assert nats_prefix.startswith("test-")


def test_a_given_server_is_used(nats_server: NatsServer, tmp_path: Path) -> None:
    options = nats_server.options
    url = options["url"].replace("//", f"//{options['user']}:{options['password']}@")
    code = """
def test_it(nats_server):
    assert nats_server.embedded is None
    assert nats_server.start().url.startswith("nats://")
"""
    if nats_server.embedded is None:
        pytest.skip("this session itself was given a server")
    assert "1 passed" in run(tmp_path, code, f"--nats={url}")
