"""Workers of an older and of a newer version of the code in one pool."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genro_nats.errors import FunctionNotFoundError
from genro_nats.tasks.record import Record
from genro_nats.tasks.retry import MAX_MISSES
from genro_nats.tasks.status import TaskState
from tests.faults.conftest import until
from tests.faults.durable import TaskFleet

pytestmark = pytest.mark.anyio

OLD = """
def before(x):
    return f"old {x}"

def calls_missing():
    from genro_nats.codec.functions import resolve
    resolve("fleetcode:nowhere")
"""

NEW = """
from genro_nats import ExecutorRegistry
pool = ExecutorRegistry().executor("inline", name="x")

@pool(aliases=["fleetcode:before"])
def after(x):
    return f"new {x}"

def only_new(x):
    return f"new {x}"
"""


class Versions:
    """Directories that hold the module fleetcode, and the module of each."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.old, self.new = directory / "old", directory / "new"
        for path, text in ((self.old, OLD), (self.new, NEW)):
            path.mkdir()
            (path / "fleetcode.py").write_text(text)

    def load(self, path: Path) -> ModuleType:
        """This process has that version from now on."""
        sys.modules.pop("fleetcode", None)
        importlib.invalidate_caches()
        with self._monkeypatch.context() as patch:
            patch.syspath_prepend(str(path))
            return importlib.import_module("fleetcode")


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Versions]:
    yield Versions(tmp_path, monkeypatch)
    sys.modules.pop("fleetcode", None)


async def test_a_renamed_function_is_found_by_its_alias(shared_tasks: TaskFleet, versions: Versions) -> None:
    old = await shared_tasks.worker(path=versions.old)
    pool = shared_tasks.caller()
    before = versions.load(versions.old).before
    async with shared_tasks.ledger() as ledger:
        tasks = [await pool.enqueue(before, 1)]
        assert await tasks[0].result(timeout=10) == "old 1"
        old.end()
        tasks.append(await pool.enqueue(before, 2))
        await shared_tasks.worker(path=versions.new)
        assert await tasks[1].result(timeout=10) == "new 2"
        assert await ledger.check(task.id for task in tasks) == {"completed": 2}


async def test_what_only_the_newer_one_has_waits_for_it(shared_tasks: TaskFleet, versions: Versions) -> None:
    old = await shared_tasks.worker(path=versions.old)
    pool = shared_tasks.caller()
    only_new = versions.load(versions.new).only_new
    async with shared_tasks.ledger() as ledger:
        tasks = [await pool.enqueue(only_new, n) for n in range(20)]
        await until(lambda: old.count("task.again") >= 20)
        status = await tasks[0].status()
        assert status.state is TaskState.SCHEDULED
        assert "only_new" in status.error
        assert status.next_retry_at is not None
        await shared_tasks.worker(path=versions.new)
        for n, task in enumerate(tasks):
            assert await task.result(timeout=20) == f"new {n}"
            assert (await task.status()).attempts == 1
        assert await ledger.check(task.id for task in tasks) == {"completed": 20}
        assert [letter async for letter in _letters(pool)] == []


async def _letters(pool: Any) -> Any:
    for letter in await pool.dead.list():
        yield letter


async def test_what_nobody_has_fails_in_the_end_and_is_named(
    shared_tasks: TaskFleet, versions: Versions
) -> None:
    pool = shared_tasks.caller()
    only_new = versions.load(versions.new).only_new
    async with shared_tasks.ledger() as ledger:
        task = await pool(only_new).options(retries=3).enqueue(1)
        missed = Record(TaskState.SCHEDULED, 1.0, misses=MAX_MISSES - 2)
        await ledger.store.save(task.id, missed, expected=0)
        worker = await shared_tasks.worker(path=versions.old)
        await until(lambda: worker.count("task.again"))
        # Not tried before it is due, also by a worker that has just come.
        assert (await task.status()).state is TaskState.SCHEDULED
        with pytest.raises(FunctionNotFoundError, match="only_new"):
            await task.result(timeout=20)
        (letter,) = await pool.dead.list()
        assert f"{MAX_MISSES} tries" in letter.reason
        assert await ledger.check([task.id]) == {"failed": 1}


async def test_a_function_that_misses_another_one_fails_as_usual(
    shared_tasks: TaskFleet, versions: Versions
) -> None:
    await shared_tasks.worker(path=versions.old)
    pool = shared_tasks.caller()
    task = await pool.enqueue(versions.load(versions.old).calls_missing)
    with pytest.raises(FunctionNotFoundError, match="nowhere"):
        await task.result(timeout=5)
    assert (await task.status()).attempts == 1
