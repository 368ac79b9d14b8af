"""Functions by value, balance, operators and callers of other sorts, where there are roles and a shared key."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from genro_nats import NatsExecutor, NotAllowedError, ProcessExecutor, SignatureError, TaskFailedError
from genro_nats.cli.main import main
from genro_nats.codec.signing import new_key
from tests.combined import jobs
from tests.combined.conftest import KEY, Site

LARGE = 1_500_000  # over inline_limit


def closure(size: int) -> Any:
    """A function that no worker has, and whose pickle is so large."""
    first, second = os.urandom(size // 2), os.urandom(size // 2)  # no one variable of more than 1 MB

    def weigh(value: bytes, seconds: float = 0.0) -> tuple[int, int, int]:
        time.sleep(seconds)
        return len(first) + len(second), len(value), os.getpid()

    return weigh


@pytest.mark.anyio
async def test_a_function_is_fetched_where_its_calls_were_handed_on(site: Site) -> None:
    async with site.pool("caller", "late", compression="zstd") as pool:
        weigh, large = closure(LARGE), os.urandom(LARGE)
        values = [large if number % 3 == 0 else b"small" for number in range(10)]
        site.workers("late")
        calls = [asyncio.create_task(pool.submit(weigh, value, 0.25)) for value in values]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)  # all are with the one worker
        await asyncio.to_thread(site.workers, "late")
        found = await asyncio.gather(*calls)
        assert [(size, length) for size, length, _ in found] == [(LARGE, len(value)) for value in values]
        assert len({pid for _, _, pid in found}) == 2
        task = await pool(weigh).options(by="value").enqueue(large)
        assert (await task.result(timeout=20))[:2] == (LARGE, LARGE)
        assert await pool(by="value")(jobs.echo)(large) == large


@pytest.mark.anyio
async def test_registered_functions_only(site: Site, tmp_path: Path) -> None:
    async with site.pool("caller", "data") as pool, site.pool("caller", "data", codec="pickle") as pickling:
        mark = str(tmp_path / "mark")
        for refused in (
            pool.submit(jobs.rest, 0.0),
            pickling.submit(jobs.echo, b"", mark),
            pickling.submit(closure(100), b""),
            pickling.submit(closure(LARGE), b""),
            pickling.submit(jobs.echo, bytes(LARGE), mark),
        ):
            with pytest.raises(NotAllowedError):
                await refused
        task = await pickling(jobs.echo).enqueue(bytes(LARGE), mark)
        with pytest.raises(TaskFailedError, match="codec='data'"):
            await task.result(timeout=20)
        assert not Path(mark).exists()


@pytest.mark.anyio
@pytest.mark.parametrize("subject", ["any", "data"])
async def test_another_key(site: Site, subject: str, tmp_path: Path) -> None:
    other = tmp_path / "keys"
    other.write_text(new_key("second"))
    async with site.pool("caller", subject, key_file=str(other)) as stranger:
        for size in (1, LARGE):
            with pytest.raises(SignatureError, match="second"):
                await asyncio.wait_for(stranger.submit(jobs.echo, bytes(size)), 10)
        task = await stranger(jobs.echo).enqueue(bytes(LARGE))
        with pytest.raises(SignatureError, match="first"):
            await task.result(timeout=10)
    # Both keys, the new one first: what a change of keys begins with is refused by who has the old one only.
    other.write_text(site.key_file.read_text() + "\n" + new_key("second"))
    async with site.pool("caller", subject, key_file=str(other)) as friend:
        assert await friend.submit(jobs.echo, bytes(LARGE)) == bytes(LARGE)


@pytest.mark.parametrize("subject", ["any", "data"])
def test_callers_under_trio_and_in_threads(site: Site, subject: str) -> None:
    options = site.options("caller", subject)
    large = os.urandom(LARGE)

    async def use() -> None:
        async with NatsExecutor("trio", **options, compression="lz4") as pool:
            assert await pool.submit(jobs.echo, large) == large
            assert [len(item) async for item in pool(jobs.pieces).stream(2, LARGE)] == [LARGE, LARGE]
            task = await pool(jobs.resumed).options(retries=1, backoff=0.01).enqueue(large, LARGE)
            assert (await task.result(timeout=20))[0] == large
            with anyio.move_on_after(0.3):
                await pool.submit(jobs.echo, large)

    anyio.run(use, backend="trio")
    blocking = NatsExecutor("thread", **options)
    assert blocking(jobs.echo).call(large) == large
    asyncio.run(blocking.shutdown())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A command, to its end; what it printed."""

    def run(*arguments: str) -> Any:
        assert main([*arguments]) == 0, (arguments, capsys.readouterr().err)
        printed = capsys.readouterr().out
        return json.loads(printed) if printed.startswith(("{", "[")) else printed

    return run


def test_commands(
    site: Site,
    run: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = site.options("caller", "data")

    async def prepare() -> tuple[str, str, str, str]:
        async with site.pool("caller", "any") as pool:
            pickled = await pool(jobs.echo).enqueue(b"pickled")
            await pickled.result(timeout=20)
        async with NatsExecutor("t", **options) as pool:
            good = await pool(jobs.echo).enqueue(b"good")
            await good.result(timeout=20)
            bad = await pool(jobs.mended).enqueue(bytes(LARGE), str(tmp_path / "never"))
            with pytest.raises(LookupError):
                await bad.result(timeout=20)
            waiting = await pool(jobs.echo).options(delay=600).enqueue(bytes(LARGE))
            return good.id, bad.id, waiting.id, pickled.id

    good, bad, waiting, pickled = asyncio.run(prepare())
    extra = site.workers("any")
    monkeypatch.delenv(KEY)
    key = ["--key-file", str(site.key_file)]
    looking = [*site.command("observer"), *key]
    managing = [*site.command("manager"), *key]
    data = ["--subject", "data", "--lease", "2"]
    assert len(run("workers", *looking, "--json")) >= 5
    assert {pool["subject"] for pool in run("pools", *looking, "--json")} >= {"any", "data"}
    assert run("top", "--once", *looking, "--json")
    assert good in {task["id"] for task in run("tasks", *looking, *data, "--json")}
    assert run("task", good, *looking, *data, "--json")["state"] == "completed"
    assert bad in {letter["id"] for letter in run("dead", *looking, *data, "--json")}
    assert run("task", good, "--result", *looking, *data, "--codec", "data") == "b'good'\n"
    of_any = ["--subject", "any", "--lease", "2", "--codec", "data"]
    assert main(["task", pickled, "--result", *looking, *of_any]) == 1
    assert "NotAllowedError" in capsys.readouterr().err
    assert main(["workers", *site.command("observer"), "--wait", "0.5"]) == 1
    assert "--key-file" in capsys.readouterr().err
    run("retry", bad, *managing, *data)
    run("cancel", waiting, *managing, *data)
    assert run("task", waiting, *looking, *data, "--json")["state"] == "cancelled"
    assert run("schedules", *looking, *data, "--json") == []
    run("drain", extra.id, *managing)
    assert extra.wait() == 0


@pytest.mark.anyio
async def test_a_local_pool_takes_the_same_options(site: Site) -> None:
    given = {
        "key_file": "nowhere",
        "replay_window": 1,
        "compression": "zstd",
        "only_registered": True,
        "allow": ["a:b"],
        "orphan_ttl": 5,
        "workers_timeout": 1,
        "max_backlog": 1,
        "max_backlog_size": 5000,
        "function_cache": 100_000,
        "memory_limit": "1GB",
        "nkey_seed_file": "nowhere",
    }
    async with ProcessExecutor("local", max_workers=1, by="value", codec="pickle", **given) as pool:
        assert await pool.submit(jobs.echo, bytes(LARGE)) == bytes(LARGE)
        assert (await pool.submit(closure(LARGE), b"a"))[:2] == (LARGE, 1)
    async with ProcessExecutor("local", max_workers=1, codec="data", **given) as pool:
        assert await pool.submit(jobs.echo, (bytes(LARGE), 1)) == (bytes(LARGE), 1)
