"""Exceptions that raise when they are looked at: each call gets an answer, and its child lives on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from genro_nats import (
    AsyncProcessExecutor,
    ConfigurationError,
    ProcessExecutor,
    RemoteError,
    Retry,
)
from genro_nats.tasks.status import TaskState
from tests.faults import jobs, lying
from tests.faults.conftest import Notes
from tests.faults.durable import TaskFleet

pytestmark = pytest.mark.anyio

POOLS: dict[str, Callable[[], Any]] = {
    "sync": lambda: ProcessExecutor("p", max_workers=1),
    "threads": lambda: ProcessExecutor("p", max_workers=1, threads=2),
    "async": lambda: AsyncProcessExecutor("p", max_workers=1, concurrency=2),
}


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> Any:
    return POOLS[request.param]()


async def outcome(call: Any) -> Any:
    """What it raised, within a limit."""
    try:
        return await asyncio.wait_for(call, 10)
    except BaseException as error:
        return error


@pytest.mark.parametrize("function", [lying.fail, lying.async_fail])
async def test_every_call_gets_its_exception_or_a_remote_error(pool: Any, function: Any) -> None:
    async with pool:
        before = await pool.submit(jobs.pid)
        for kind in lying.KINDS:
            assert lying.arrived(kind, await outcome(pool.submit(function, kind))), kind
        assert await pool.submit(jobs.pid) == before


@pytest.mark.parametrize("function", [lying.items, lying.async_items])
async def test_every_stream_ends_in_its_exception(pool: Any, function: Any) -> None:
    async def read(kind: str, found: list[int]) -> None:
        async for item in pool.stream(function, kind):
            found.append(item)

    async with pool:
        before = await pool.submit(jobs.pid)
        for kind in ("args", "class", "str", "text", "long-names"):
            found: list[int] = []
            assert lying.arrived(kind, await outcome(read(kind, found))), kind
            assert found == [1]
        assert await pool.submit(jobs.pid) == before


async def test_texts_of_what_hides_the_rest(pool: Any) -> None:
    async with pool:
        found = await outcome(pool.submit(lying.fail, "class"))
        assert (found.type_name.rpartition(":")[2], found.text) == (lying.KINDS["class"].__name__, "")
        assert "in fail" in found.traceback and "Hides_class" in found.traceback
        assert "hides what belongs to every exception" in str(found)
        found = await outcome(pool.submit(lying.fail, "cause-endless"))
        assert (found.text, found.traceback.count("Endless")) == ("x", 1)
        assert "in fail" in found.traceback


@pytest.mark.parametrize("function", [lying.unsendable_progress, lying.async_unsendable_progress])
async def test_a_last_progress_that_cannot_be_sent(pool: Any, function: Any) -> None:
    async with pool:
        before = await pool.submit(jobs.pid)
        listening = pool(function).options(on_progress=lambda update: None)
        found = await outcome(listening())
        assert type(found) is RemoteError and "SystemExit" in found.type_name
        assert await pool.submit(jobs.pid) == before


async def test_a_result_of_more_buffers_than_a_frame_can_name(pool: Any) -> None:
    async with pool:
        before = await pool.submit(jobs.pid)
        found = await pool.submit(jobs.many_buffers, 4097)
        assert [len(one) for one in found] == [64 * 1024] * 4097
        assert await pool.submit(jobs.pid) == before


# -- tasks --------------------------------------------------------------------

WRONG_DELAYS = [timedelta(seconds=1), math.nan, math.inf, -1, True, "1", None, 10**400]


@pytest.mark.parametrize("delay", WRONG_DELAYS, ids=repr)
def test_a_retry_asks_for_seconds(delay: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Retry\(delay=.*give seconds from 0 on") as refused:
        Retry("later", delay=delay)
    assert refused.value.option == "delay"


@pytest.mark.parametrize("delay", [0, 0.5, 30, 10**12])
def test_right_delays(delay: float) -> None:
    assert Retry(delay=delay).delay == delay


async def test_durable_tasks_end_in_what_was_raised(shared_tasks: TaskFleet, notes: Notes) -> None:
    worker = await shared_tasks.worker(max_workers=1)
    pool: Any = shared_tasks.caller()
    kinds = ["args", "__notes__", "class", "text", "qualname", "module", "metaclass", "long-names", "str"]
    tasks = [await pool(lying.fail).enqueue(kind) for kind in kinds]
    for kind, task in zip(kinds, tasks, strict=True):
        assert lying.arrived(kind, await outcome(task.result(timeout=9))), kind
        assert (await task.status()).state is TaskState.FAILED
    assert await (await pool(lying.twice).enqueue(4)).result(timeout=10) == 8
    letters = await pool.dead.list()
    assert {(letter.reason, letter.attempts) for letter in letters} == {("failed after 1 attempt", 1)}
    assert len(letters) == len(kinds)
    assert worker.count("child.lost") == 0


async def test_a_delay_that_is_none_fails_the_attempt_only(shared_tasks: TaskFleet) -> None:
    await shared_tasks.worker(max_workers=1)
    pool: Any = shared_tasks.caller()
    refused = await pool(lying.ask_again).enqueue(timedelta(seconds=1))
    found = await outcome(refused.result(timeout=9))
    assert type(found) is ConfigurationError and "give seconds from 0 on" in str(found)
    assert (await refused.status()).attempts == 1
    odd = await pool(lying.ask_again_oddly).options(retries=1).enqueue()
    assert await odd.result(timeout=10) == "done"
    assert (await odd.status()).attempts == 2


async def test_tasks_of_local_pools_end_so_too() -> None:
    async with ProcessExecutor("p", max_workers=1) as pool:
        for kind in ("args", "class", "text", "str", "long-names"):
            task: Any = await pool(lying.fail).enqueue(kind)
            assert lying.arrived(kind, await outcome(task.result(timeout=9))), kind
        odd = await pool(lying.ask_again_oddly).options(retries=1).enqueue()
        assert await odd.result(timeout=10) == "done"
