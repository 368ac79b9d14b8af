"""TaskManager: an id at once, confirmed when awaited."""

from __future__ import annotations

import gc
import logging
import threading

import anyio
import pytest

from genro_nats import (
    CodecError,
    ConfigurationError,
    ExecutorClosedError,
    ExecutorOverloadError,
    TaskManager,
    TaskNotFoundError,
    TaskState,
)
from genro_nats.testing.conformance import Marks, until
from genro_nats.testing.suite import samples
from tests.tasks_local.conftest import Make

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
async def test_submit_confirm_ask(make: Make, kind: str) -> None:
    async with TaskManager(make(kind)) as tasks:
        handle = tasks.submit(samples.add, 1, b=4)
        assert len(handle.id) == 32
        assert await handle is handle
        assert await tasks.result(handle.id, timeout=10) == 5
        assert (await tasks.status(handle.id)).state is TaskState.COMPLETED
        assert await tasks.submit(samples.add_async, 2).result(timeout=10) == 3
        assert {status.state for status in await tasks.list()} == {TaskState.COMPLETED}
        assert await tasks.list("failed") == []
        with pytest.raises(ConfigurationError):
            await tasks.list("finished")
        with pytest.raises(TaskNotFoundError):
            await tasks.status("unknown")


async def test_its_own_process_pool() -> None:
    import os

    async with TaskManager() as tasks:
        assert tasks.executor.kind == "process"
        pid, _ = await tasks.submit(samples.where).result(timeout=20)
        assert pid != os.getpid()
    with pytest.raises(ExecutorClosedError):
        tasks.submit(samples.add, 1)
    with pytest.raises(ExecutorClosedError):
        await tasks.executor.submit(samples.add, 1)


async def test_what_is_asked_before_it_is_stored_waits_for_that(make: Make) -> None:
    async with TaskManager(make("thread")) as tasks:
        slow = make("thread")(samples.add).options(delay=60)
        assert (await tasks.status(tasks.submit(slow, 1).id)).state is TaskState.SCHEDULED
        assert await tasks.cancel(tasks.submit(slow, 1).id)
        handle = tasks.submit(slow, 1)
        async for status in handle.watch():
            if status.state is TaskState.SCHEDULED:
                assert await handle.cancel()
        assert (await handle.status()).state is TaskState.CANCELLED


async def test_options_of_the_function_count_and_its_pool_does_not(make: Make) -> None:
    mine, other = make("thread"), make("inline")
    async with TaskManager(mine) as tasks:
        retried = other(samples.fail_before).options(retries=2, backoff=0, id="own")
        handle = tasks.submit(retried, 2)
        assert handle.id == "own"
        assert await handle.result(timeout=10) == (2, "own")
        assert (await mine.task("own").status()).attempts == 2
        keyed = other(samples.add).options(key="k", delay=60)
        first, second = await tasks.submit(keyed, 1), await tasks.submit(keyed, 2)
        assert second.id == first.id


async def test_an_error_of_storing_is_raised_where_it_is_awaited(
    make: Make, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    async with TaskManager(make("thread", max_queued=1, overload="fail")) as tasks:
        first = await tasks.submit(samples.hold_async, marks.path)
        await marks.begun()
        second = await tasks.submit(samples.add, 1)
        third = tasks.submit(samples.add, 2)
        with pytest.raises(ExecutorOverloadError):
            await third
        with pytest.raises(ExecutorOverloadError):
            await third.result()
        marks.release()
        assert await first.result(timeout=10) == "call"
        assert await second.result(timeout=10) == 2
        del third
        gc.collect()
    assert "was not stored" not in caplog.text


async def test_an_error_of_storing_that_nobody_awaits_is_logged(
    make: Make, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    async with TaskManager(make("thread", max_queued=1, overload="fail")) as tasks:
        await tasks.submit(samples.hold_async, marks.path)
        await marks.begun()
        await tasks.submit(samples.add, 1)
        id = tasks.submit(samples.add, 2).id

        def logged() -> bool:
            gc.collect()
            return f"task {id} was not stored: ExecutorOverloadError" in caplog.text

        with caplog.at_level(logging.ERROR, "genro_nats"):
            await until(logged)
        marks.release()


async def test_a_function_that_cannot_be_a_task_is_refused_at_once(make: Make) -> None:
    tasks = TaskManager(make("process"))
    with pytest.raises(CodecError, match="by_value"):
        tasks.submit(lambda: 1)


async def test_from_a_plain_thread(make: Make) -> None:
    async with TaskManager(make("process")) as tasks:
        ids: list[str] = []

        def work() -> None:
            ids.append(tasks.submit(samples.add, 41).id)

        await anyio.to_thread.run_sync(work)
        assert await tasks.result(ids[0], timeout=10) == 42
    await until(lambda: "genro-nats-task-manager" not in {t.name for t in threading.enumerate()})


async def test_closing_sees_everything_stored(make: Make) -> None:
    pool = make("thread")
    tasks = TaskManager(pool)
    ids = [tasks.submit(samples.add, n).id for n in range(50)]
    await tasks.aclose()
    assert [await pool.task(id).result(timeout=10) for id in ids] == list(range(1, 51))


@pytest.fixture
def marks(tmp_path: object) -> Marks:
    from pathlib import Path

    return Marks(Path(str(tmp_path)))
