"""What an attempt sees, and what of it counts."""

from __future__ import annotations

import sys
import threading
import time
from contextvars import copy_context

import pytest

from genro_nats import (
    CodecError,
    ConfigurationError,
    ExecutorError,
    ProcessExecutor,
    TaskState,
    current_call,
)
from genro_nats.testing.suite import samples
from tests.tasks_local import jobs
from tests.tasks_local.conftest import Make

pytestmark = pytest.mark.anyio
KINDS = ("inline", "thread", "async", "process", "async-process")


@pytest.mark.parametrize("kind", ["inline", "process"])
async def test_where_calls_run_inline_a_task_is_settled_when_enqueue_returns(make: Make, kind: str) -> None:
    pool = make(kind, bypass=True)
    task = await pool(samples.add).enqueue(1)
    assert (await task.status()).state is TaskState.COMPLETED
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("genro-nats-tasks")]
    begun = time.monotonic()
    retried = await pool(samples.fail_before).options(retries=3, backoff=60).enqueue(4)
    assert time.monotonic() - begun < 5
    assert (await retried.status()).attempts == 4
    failed = await pool(samples.negative).enqueue(-1)
    assert (await failed.status()).state is TaskState.FAILED
    many = await pool(samples.add).enqueue_many(range(3))
    assert [(await task.status()).state for task in many] == [TaskState.COMPLETED] * 3
    assert pool.metrics["submitted"] == 9


async def test_a_task_enqueued_inside_one_where_calls_run_inline(make: Make) -> None:
    pool = make("inline", max_pending=1)
    add = pool(samples.add)

    async def outer() -> str:
        return (await add.enqueue(1)).id

    task = await pool(outer).options(by_value=True).enqueue()
    inner = pool.task(await task.result())
    assert await inner.result(timeout=1) == 2
    assert inner.id != task.id


async def test_a_task_enqueued_inside_one_runs_on_a_worker_of_the_pool(make: Make) -> None:
    pool = make("thread", max_workers=2)

    async def outer() -> str:
        return (await pool(jobs.where).enqueue()).id

    task = await pool(outer).options(by_value=True).enqueue()
    inner = pool.task(await task.result(timeout=10))
    assert (await inner.result(timeout=10)).startswith("pool_")


@pytest.mark.parametrize("kind", KINDS)
async def test_context_variables(make: Make, kind: str) -> None:
    pool = make(kind, carry=[jobs.user])
    context = copy_context()
    context.run(jobs.user.set, "ada")
    token = jobs.user.set("ada")
    task = await pool(jobs.who).options(delay=0.05).enqueue()
    jobs.user.reset(token)
    assert await task.result(timeout=10) == "ada"


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_a_checkpoint_is_what_it_was_when_it_was_made(make: Make, kind: str) -> None:
    pool = make(kind)
    task = await pool(jobs.mutate_checkpoint).options(retries=1, backoff=0).enqueue()
    assert await task.result(timeout=10) == [1]


@pytest.mark.parametrize("kind", ["inline", "process"])
async def test_a_checkpoint_that_cannot_be_kept(make: Make, kind: str) -> None:
    task = await make(kind)(jobs.keep_unpicklable).enqueue()
    with pytest.raises(CodecError, match="lock"):
        await task.result(timeout=10)


async def test_a_timeout_of_the_function_s_own_is_its_exception(make: Make) -> None:
    task = await make("thread")(jobs.timeout).enqueue()
    with pytest.raises(TimeoutError, match="the function's own"):
        await task.result(timeout=10)


async def test_an_argument_that_cannot_be_sent_is_named_by_enqueue(make: Make) -> None:
    with pytest.raises(CodecError, match="'value' of"):
        await make("process")(samples.echo).enqueue(threading.Lock())


async def test_the_trace_goes_on(make: Make) -> None:
    pool = make("inline")
    traced = make("thread")(jobs.trace)

    async def outer() -> tuple[str, str]:
        task = await traced.enqueue()
        return current_call().trace_id, await task.result(timeout=10)

    outside, inside = await pool.submit(outer)
    assert outside == inside


async def test_dead_letters_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genro_nats.executor.local_tasks.letters.MAX_LETTERS", 3)
    pool = make("inline")
    tasks = [await pool(samples.negative).enqueue(-n) for n in range(1, 6)]
    assert [letter.id for letter in await pool.dead.list()] == [task.id for task in tasks[2:]]


async def test_cron_names_the_extra_it_needs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    pool = make("thread")
    with pytest.raises(ConfigurationError, match=r"genro-nats\[schedules\]"):
        await pool(samples.add).schedule("nightly", cron="0 3 * * *", args=(1,))
    await pool(samples.add).schedule("often", every=60, args=(1,))


async def _delayed_inside() -> str:
    pool = ProcessExecutor("nested")
    try:
        await pool(samples.add).options(delay=5).enqueue(1)
    except ExecutorError as error:
        return str(error)
    return ""


async def _at_once_inside() -> int:
    pool = ProcessExecutor("nested")
    return await (await pool(samples.add).enqueue(1)).result(timeout=1)


async def test_inside_a_child(make: Make) -> None:
    pool = make("process")
    assert await pool.submit(_at_once_inside) == 2
    assert "would be lost" in await pool.submit(_delayed_inside)
