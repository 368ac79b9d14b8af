"""How children start in surroundings that are not ours: odd directories, paths, imports with threads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from genro_nats.config import PoolOptions
from genro_nats.executor.children.child import Child
from genro_nats.executor.children.pool import ChildPool
from genro_nats.executor.children.setup import ChildSetup
from genro_nats.executor.children.spawner import Spawner
from genro_nats.executor.process_engine import pool_plan
from tests.faults.conftest import ROOT, until

SCRIPT = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from genro_nats import ProcessExecutor

def look():
    import os, sys, genro_nats
    return {"home": genro_nats.__file__, "path": sys.path, "env": os.environ.get("PYTHONPATH"),
            "loaded": "thing" in sys.modules, "forked": "genro_nats.worker.template" in sys.modules}

async def main():
    async with ProcessExecutor("p", max_workers=1, spares=0, imports=json.loads(sys.argv[2])) as pool:
        print(json.dumps([sys.path, await asyncio.wait_for(pool.submit(look), 10)]))

if __name__ == "__main__":
    asyncio.run(main())
"""


def run(directory: Path, *command: str, path: Path = ROOT, imports: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """The caller's ``sys.path`` and what its child saw."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *command, str(path), json.dumps(imports)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mine, seen = json.loads(done.stdout)
    return mine, seen


def test_modules_in_the_working_directory_named_as_the_librarys(tmp_path: Path) -> None:
    for name in ("random", "socket", "signal", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "script.py").write_text(SCRIPT)
    mine, seen = run(tmp_path, str(elsewhere / "script.py"))
    assert seen["path"] == mine
    assert seen["env"] is None


def test_a_package_found_by_changes_of_the_search_path_only(tmp_path: Path) -> None:
    (tmp_path / "genro_nats").symlink_to(ROOT / "genro_nats")
    directory = tmp_path / "work"
    directory.mkdir()
    _, seen = run(directory, "-c", SCRIPT, path=tmp_path)
    assert seen["home"] == str(tmp_path / "genro_nats" / "__init__.py")
    assert "" in seen["path"]


@pytest.mark.parametrize("threads", [False, True])
def test_imports_are_there_before_the_first_call(tmp_path: Path, threads: bool) -> None:
    text = "import threading, time\n"
    if threads:
        text += "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
    (tmp_path / "thing.py").write_text(text)
    mine, seen = run(tmp_path, "-c", SCRIPT, imports=("thing",))
    assert seen["loaded"]
    assert seen["path"] == mine
    assert seen["env"] is None
    assert seen["forked"] != threads


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_child_that_nobody_waits_for_any_more_is_ended(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner = Spawner((), (), lambda: None)
    await spawner.start(10)
    try:
        ours, theirs = socket.socketpair()
        tokens, other = os.pipe()
        asked = asyncio.ensure_future(spawner.spawn(ChildSetup(), theirs, tokens, lambda status: None))
        await asyncio.sleep(0)  # now the template has been asked
        assert spawner._spawning
        if when == "before":
            asked.cancel()
        else:  # the answer and the cancel come in one turn of the loop
            heard = spawner._heard
            monkeypatch.setattr(spawner, "_heard", lambda message: (heard(message), asked.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: not spawner._spawning)
        await until(lambda: not spawner._exits and not spawner._early)
        theirs.close()
        assert await asyncio.wait_for(asyncio.to_thread(hears_the_end, ours), 5)
        ours.close()
        os.close(tokens)
        os.close(other)
    finally:
        await spawner.aclose()


def fresh_pool(size: int) -> ChildPool:
    return ChildPool(pool_plan(PoolOptions(max_workers=size, spares=1), name="p", kind="process"))


async def killed(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: child.ended)


@pytest.mark.anyio
async def test_a_child_that_dies_after_its_hello_does_not_become_a_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = fresh_pool(1)
    await pool.start()
    children = pool.roster
    await until(lambda: len(children.spares) == 1)
    doomed: list[Child] = []

    async def die_once(child: Child) -> None:
        if not doomed:
            doomed.append(child)
            await killed(child)

    monkeypatch.setattr(children, "_initialize", die_once)
    await killed(children.active[0])
    await until(lambda: doomed and len(children.spares) == 1)
    assert not [child for child in children.children if child.ended]
    assert (len(children.active), children.lost) == (1, 2)
    await pool.aclose()


@pytest.mark.anyio
async def test_a_child_that_dies_while_it_waits_for_the_others_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = fresh_pool(2)
    children = pool.roster
    seen: list[Child] = []

    async def first_dies_before_the_second_is_ready(child: Child) -> None:
        seen.append(child)
        if len(seen) == 2:
            await until(lambda: seen[0].ready)
            await killed(seen[0])

    monkeypatch.setattr(children, "_initialize", first_dies_before_the_second_is_ready)
    await pool.start()
    assert not [child for child in children.active if child.ended]
    await until(lambda: len(children.active) == 2 and len(children.spares) == 1)
    assert len(seen) == 4  # two, one in the place of the dead, one spare
    await pool.aclose()


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_leaves_nothing_open() -> None:
    pool = fresh_pool(1)
    await pool.start()
    await until(lambda: len(pool.roster.spares) == 1)
    this = psutil.Process()
    before = this.num_fds()
    starting = asyncio.ensure_future(pool.roster.new_child())
    async with asyncio.timeout(10):
        while not pool.roster.spawner._spawning:
            await asyncio.sleep(0)
    assert this.num_fds() > before
    starting.cancel()
    await asyncio.wait([starting])
    assert this.num_fds() == before
    await pool.aclose()


def hears_the_end(pipe: socket.socket) -> bool:
    """Does the pipe's other end close within 5 s?"""
    pipe.settimeout(5)
    while pipe.recv(4096):
        pass
    return True
