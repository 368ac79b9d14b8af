"""Conformance: when tasks run, in which order, how many are kept and for how long."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from genro_nats.errors import (
    ConfigurationError,
    ExecutorOverloadError,
    TaskFailedError,
    TaskNotFoundError,
)
from genro_nats.executor.base import BaseExecutor
from genro_nats.tasks.handle import TaskHandle
from genro_nats.tasks.schedule import ScheduleSpec
from genro_nats.tasks.status import TaskState
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import LIMIT, Can, Factory, Marks, Running
from genro_nats.testing.suite.tasks import TaskBase

__all__ = ["KeepingTests", "OrderTests", "ScheduleTests"]


class OrderTests(TaskBase):
    """Not before its time, by priority, and not after its time."""

    async def test_delays(self, pool: BaseExecutor) -> None:
        task = await pool(samples.add).options(delay=0.3).enqueue(1)
        assert (await task.status()).state is TaskState.SCHEDULED
        assert await self.value(task) == 2
        status = await task.status()
        assert status.started_at is not None
        assert 0.29 <= status.started_at - status.created_at < 0.3 + 2

    async def test_moments(self, pool: BaseExecutor) -> None:
        at = datetime.now(UTC) + timedelta(seconds=1)
        task = await pool(samples.add).options(at=at).enqueue(1)
        assert await self.value(task) == 2
        assert time.time() >= at.timestamp() - 0.05
        past = await pool(samples.add).options(at=time.time() - 60).enqueue(2)
        assert await self.value(past) == 3

    async def test_strict_priorities(self, make: Factory, marks: Marks) -> None:
        self.need(Can.QUEUE_TASKS)
        pool = make(**self.single)
        first = await self.held(pool, marks)
        note = pool(samples.note)
        tasks: list[TaskHandle[str]] = []
        for priority in ("low", "normal", "high"):
            for number in range(3):
                ranked = note.options(priority=priority)
                tasks.append(await ranked.enqueue(marks.path, f"{priority} {number}"))
        marks.release()
        assert await self.value(first) == "call"
        for task in tasks:
            await self.value(task)
        order = marks.text("order").split("\n")[:-1]
        assert order == [f"{priority} {n}" for priority in ("high", "normal", "low") for n in range(3)]

    async def test_what_comes_too_late_fails(self, make: Factory, marks: Marks) -> None:
        self.need(Can.QUEUE_TASKS)
        pool = make(**self.single)
        first = await self.held(pool, marks)
        task = await pool(samples.note).options(expires=0.1).enqueue(marks.path, "late")
        in_time = await pool(samples.note).options(expires=60.0).enqueue(marks.path, "in time")
        if self.expires_beside:
            with pytest.raises(TaskFailedError, match="expired"):
                await self.value(task)
        else:
            await anyio.sleep(0.2)
        marks.release()
        with pytest.raises(TaskFailedError) as caught:
            await self.value(task)
        assert "expired" in caught.value.reason
        assert (await task.status()).attempts == 0
        assert await self.value(first) == "call"
        assert await self.value(in_time) == "in time"
        assert marks.text("order") == "in time\n"

    expires_beside = True  # it is known at once, not only when a worker comes to it


class KeepingTests(TaskBase):
    """Which tasks are one, how many may wait, and how long outcomes are kept."""

    async def test_one_task_for_a_key(self, make: Factory, marks: Marks) -> None:
        pool = make(**self.single)
        task = await self.begin(pool, samples.hold_async, marks.path, key="k")
        twins = [await self.begin(pool, samples.add, 1, key="k", priority=p) for p in ("high", "low")]
        delayed = await pool(samples.add).options(key="k", delay=60).enqueue(1)
        assert {twin.id for twin in (*twins, delayed)} == {task.id}
        other = await pool(samples.add).options(key="other", delay=60).enqueue(1)
        assert other.id != task.id
        assert await other.cancel()
        marks.release()
        assert await self.value(task) == "call"
        after = await pool(samples.add).options(key="k").enqueue(1)
        assert after.id != task.id
        assert await self.value(after) == 2

    async def test_a_key_is_raced_for(self, pool: BaseExecutor) -> None:
        once = pool(samples.add).options(key="raced", delay=60)
        ids: set[str] = set()

        async def enqueue(number: int) -> None:
            ids.add((await once.enqueue(number)).id)

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(enqueue, number)
        assert len(ids) == 1
        assert await pool.task(ids.pop()).cancel()

    async def test_one_task_for_an_id(self, pool: BaseExecutor) -> None:
        add = pool(samples.add).options(id=f"own {time.time_ns()}")
        task, twin = await add.enqueue(1), await add.enqueue(5)
        assert task.id == twin.id
        assert await self.value(task) == 2
        assert await self.value(await add.enqueue(9)) == 2
        assert (await task.status()).attempts == 1

    async def test_a_full_pool_refuses(self, make: Factory, marks: Marks) -> None:
        self.need(Can.QUEUE_TASKS)
        pool = make(**self.single, max_queued=2, overload="fail")
        first = await self.held(pool, marks)
        tasks = [await pool(samples.add).enqueue(n) for n in range(2)]
        with pytest.raises(ExecutorOverloadError) as caught:
            await pool(samples.add).enqueue(9)
        assert (caught.value.executor, caught.value.max_queued) == (pool.name, 2)
        with pytest.raises(ExecutorOverloadError) as caught:
            await pool(samples.add).enqueue_many([7, 8])
        assert caught.value.stored == []
        marks.release()
        assert await self.value(first) == "call"
        assert [await self.value(task) for task in tasks] == [1, 2]
        assert await self.value(await pool(samples.add).enqueue(9)) == 10

    async def test_a_full_pool_lets_wait(self, make: Factory, marks: Marks) -> None:
        self.need(Can.QUEUE_TASKS)
        pool = make(**self.single, max_queued=1)
        first = await self.held(pool, marks)
        second = await pool(samples.add).enqueue(1)
        async with anyio.create_task_group() as group:
            given_up = Running(group, pool(samples.add).enqueue, 3)
            await anyio.sleep(0.05)
            third = Running(group, pool(samples.add).enqueue, 2)
            await anyio.sleep(0.05)
            assert not third.ended
            await given_up.cancel()
            marks.release()
            assert await self.value(await third.result()) == 3
        assert await self.value(first) == "call"
        assert await self.value(second) == 2

    async def test_outcomes_are_forgotten_in_time(self, pool: BaseExecutor) -> None:
        task = await pool(samples.add).options(result_ttl=1.0).enqueue(1)
        assert await self.value(task) == 2
        with anyio.fail_after(LIMIT):
            while True:
                try:
                    await task.status()
                except TaskNotFoundError:
                    break
                await anyio.sleep(0.05)

    async def test_outcomes_are_forgotten_when_read(self, pool: BaseExecutor) -> None:
        task = await pool(samples.add).options(keep_result=False).enqueue(1)
        assert await self.value(task) == 2
        with pytest.raises(TaskNotFoundError):
            await self.value(task)


class ScheduleTests(TaskBase):
    """Each run of a schedule is a task of its own."""

    async def test_runs(self, pool: BaseExecutor, marks: Marks) -> None:
        name = f"runs {time.time_ns()}"
        schedule = await pool(samples.note).schedule(name, every=1, args=(marks.path, "run"))
        begun = time.time()
        with anyio.fail_after(LIMIT):
            while not marks.has("order"):
                await anyio.sleep(0.01)
        assert await schedule.remove()
        ids = [status.id async for status in pool.tasks(limit=1000) if status.id.startswith(name)]
        assert ids
        assert re.fullmatch(rf"{name}\.\d{{8}}T\d{{6}}Z", ids[0])
        due = datetime.strptime(ids[0].rpartition(".")[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert -1 < due.timestamp() - begun < 3
        assert await self.value(pool.task(ids[0])) == "run"

    async def test_listing_replacing_and_removing(self, pool: BaseExecutor) -> None:
        add = pool(samples.add)
        handle = await add.schedule("nightly", cron="0 3 * * mon-fri", timezone="Europe/Rome", args=(1,))
        await add.schedule("again", every=3600, args=(1,))
        try:
            found = {schedule.name: schedule async for schedule in pool.schedules()}
            assert sorted(found) == ["again", "nightly"]
            assert found["nightly"].spec == ScheduleSpec("0 3 * * mon-fri", "Europe/Rome") == handle.spec
            assert found["nightly"].function == f"{samples.__name__}:add"
            await add.schedule("nightly", every=7200, args=(2,))
            replaced = [schedule.spec.every async for schedule in pool.schedules()]
            assert replaced == [3600, 7200]
        finally:
            assert await pool.unschedule("again")
            assert await handle.remove()
        assert not await pool.unschedule("nightly")
        assert [schedule async for schedule in pool.schedules()] == []

    async def test_what_makes_no_sense(self, pool: BaseExecutor) -> None:
        add = pool(samples.add)
        for wrong in (
            {"cron": "0 3 * *"},
            {"cron": "61 * * * *"},
            {},
            {"every": 0.2},
            {"every": 5, "cron": "* * * * *"},
        ):
            with pytest.raises(ConfigurationError):
                await add.schedule("wrong", **wrong)
        with pytest.raises(ConfigurationError, match="delay="):
            await add.options(delay=3).schedule("wrong", every=5)
        assert [schedule async for schedule in pool.schedules()] == []
