"""Outcomes that are deleted once they were read (keep_result=False): what counts as read, and ids that come again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from genro_nats import NatsExecutor
from genro_nats.errors import (
    CallTimeoutError,
    ConnectionLostError,
    ExecutorError,
    NotAllowedError,
    PayloadTooLargeError,
    TaskError,
    TaskNotFoundError,
)
from genro_nats.executor.nats_tasks import submit
from genro_nats.tasks.handle import TaskHandle
from tests.faults import jobs, task_jobs
from tests.faults.conftest import until
from tests.faults.durable import Ledger, TaskFleet, reach

pytestmark = pytest.mark.anyio

LARGE = 3_000_000  # bytes: six chunks


def engine_tasks(pool: NatsExecutor) -> Any:
    return pool._home.engine.tasks  # type: ignore[union-attr]


async def settled(pool: NatsExecutor, count: int = LARGE) -> TaskHandle[bytes]:
    """A task of whose end the pool has heard, and that nobody has read."""
    handle = await pool(jobs.give_bytes).options(keep_result=False).enqueue(count)
    await until(lambda: engine_tasks(pool)._outcomes.known(handle.id))
    return handle


async def deleted(ledger: Ledger, id: str) -> None:
    async def gone() -> bool:
        return await ledger.store.load(id) is None

    await reach(gone)


async def read_once(ledger: Ledger, pool: NatsExecutor, handle: TaskHandle[bytes]) -> None:
    """It is there still; and once it was read, it goes."""
    assert await pool.task(handle.id).result(timeout=20) == bytes(LARGE)
    await deleted(ledger, handle.id)
    with pytest.raises(TaskNotFoundError, match="was read, and deleted"):
        await pool.task(handle.id).result(timeout=5)


async def test_reading_that_is_cancelled_can_be_repeated(shared_tasks: TaskFleet) -> None:
    await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        handle = await settled(pool)
        reading = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await read_once(ledger, pool, handle)


async def test_a_timeout_bounds_reading_too(shared_tasks: TaskFleet) -> None:
    await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        handle = await settled(pool)
        with pytest.raises(CallTimeoutError, match=r"not read within 0 s.*again") as late:
            await handle.result(timeout=0)
        assert late.value.fields == {"timeout": 0, "task_id": handle.id}
        await read_once(ledger, pool, handle)
        small = await settled(pool, 10)  # came with its state: there is nothing to wait for
        assert await small.result(timeout=0) == bytes(10)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"max_payload_size": 1_000_000}, PayloadTooLargeError), ({"codec": "data"}, NotAllowedError)],
)
async def test_who_can_t_read_an_outcome_leaves_it_to_others(
    shared_tasks: TaskFleet, options: dict[str, Any], error: type[ExecutorError]
) -> None:
    await shared_tasks.worker()
    pool, other = shared_tasks.caller(), shared_tasks.caller(**options)
    async with shared_tasks.ledger() as ledger:
        handle = await settled(pool)
        with pytest.raises(error):
            await other.task(handle.id).result(timeout=10)
        with pytest.raises(error):
            await other.task(handle.id).result(timeout=10)
        await read_once(ledger, pool, handle)


async def test_an_exception_of_the_task_s_own_was_read(shared_tasks: TaskFleet) -> None:
    """Whatever its type: it is not that reading failed."""
    await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        handle: TaskHandle[Any] = await pool(task_jobs.time_out).options(keep_result=False).enqueue()
        with pytest.raises(TimeoutError, match="mine"):
            await handle.result(timeout=10)
        await deleted(ledger, handle.id)


async def test_a_server_that_goes_away_meanwhile_takes_no_outcome_along(tasks: TaskFleet) -> None:
    await tasks.worker()
    pool = tasks.caller(disconnect_timeout=0.5)
    async with tasks.ledger() as ledger:
        handle = await settled(pool)
        reading = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        tasks.server.kill()
        with pytest.raises(ConnectionLostError):
            await reading
        await asyncio.to_thread(tasks.server.restart)
        await until(lambda: engine_tasks(pool)._connection.connected)
        await read_once(ledger, pool, handle)


async def test_what_was_read_is_given_though_nobody_can_be_asked_to_delete_it(
    shared_tasks: TaskFleet, caplog: pytest.LogCaptureFixture
) -> None:
    """The request finds no room, and no worker hears it: the outcome stays, and can be read again."""
    worker = await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        handle = await settled(pool)
        await ledger.empty()
        worker.end()
        stream = ledger.subjects.states_stream
        info = await ledger.js.api(f"STREAM.INFO.{stream}")
        full = {**info["config"], "max_msgs": info["state"]["messages"], "discard": "new"}
        await ledger.js.api(f"STREAM.UPDATE.{stream}", full)
        assert await handle.result(timeout=10) == bytes(LARGE)
        await until(lambda: "nobody could be asked to delete" in caplog.text)
        assert await handle.result(timeout=10) == bytes(LARGE)
        await ledger.js.api(f"STREAM.UPDATE.{stream}", info["config"])
        await shared_tasks.worker()
        await read_once(ledger, pool, handle)


async def test_requests_on_their_way_are_stored_before_the_pool_has_ended(shared_tasks: TaskFleet) -> None:
    await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        handle = await settled(pool, 10)
        assert await handle.result(timeout=10) == bytes(10)
        await pool.shutdown()
        await deleted(ledger, handle.id)


async def test_an_id_whose_outcome_nobody_deletes_is_named(
    shared_tasks: TaskFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was stored now would be taken for the one that has ended, and never run."""
    monkeypatch.setattr(submit, "_ATTEMPTS", 3)
    worker = await shared_tasks.worker()
    pool = shared_tasks.caller()
    async with shared_tasks.ledger() as ledger:
        once = pool(jobs.give_bytes).options(id="order", keep_result=False)
        handle = await once.enqueue(10)
        await ledger.outcome("order")
        await ledger.empty()
        worker.end()
        assert await handle.result(timeout=10) == bytes(10)
        with pytest.raises(TaskError, match="no worker has deleted it yet"):
            await once.enqueue(20)
        assert await ledger.queued() == 0
        await shared_tasks.worker()
        await deleted(ledger, "order")
        assert await (await once.enqueue(20)).result(timeout=10) == bytes(20)
