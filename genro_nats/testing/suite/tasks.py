"""Conformance: tasks, from enqueueing to what is known of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from itertools import pairwise
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from genro_nats.errors import CallTimeoutError, CodecError, ConfigurationError, TaskNotFoundError
from genro_nats.executor.base import BaseExecutor
from genro_nats.executor.function import Function
from genro_nats.tasks.handle import TaskHandle
from genro_nats.tasks.options import TaskKeywords
from genro_nats.tasks.status import TaskState, TaskStatus, may_follow
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import LIMIT, Can, Factory, Marks, SuiteBase

__all__ = ["TaskBase", "TaskTests"]


class TaskBase(SuiteBase):
    """``beside``: options that let a task run beside its caller, where one without would run in ``enqueue``.

    ``single``: options of a pool that runs one task at a time.
    """

    beside: ClassVar[TaskKeywords] = {}
    single: ClassVar[dict[str, Any]] = {"max_workers": 1, "concurrency": 1}

    async def begin(
        self, pool: BaseExecutor, function: Callable[..., Any], *args: Any, **options: Any
    ) -> TaskHandle[Any]:
        """Enqueue it so that it runs beside the test."""
        made: Function[..., Any] = pool(function)
        return await made.options(**{**self.beside, **options}).enqueue(*args)

    async def reach(self, task: TaskHandle[Any], *states: TaskState) -> TaskStatus:
        """Wait until it is in one of the states."""
        with anyio.fail_after(LIMIT):
            async with aclosing(task.watch()) as statuses:
                async for status in statuses:
                    if status.state in states:
                        return status
        raise AssertionError(f"it ended without being {states}")

    async def value(self, task: TaskHandle[Any]) -> Any:
        """Its result, within the time that anything may take."""
        return await task.result(timeout=LIMIT)

    async def held(self, pool: BaseExecutor, marks: Marks) -> TaskHandle[Any]:
        """A task that runs until ``marks.release()``, and takes the only place of a ``single`` pool."""
        task = await self.begin(pool, samples.hold_async, marks.path)
        await marks.begun()
        return task


class TaskTests(TaskBase):
    """A task is stored, run once, and can be asked about."""

    async def test_from_enqueue_to_result(self, pool: BaseExecutor) -> None:
        before = time.time()
        task = await pool(samples.add).enqueue(2, b=5)
        assert await self.value(task) == 7
        status = await task.status()
        assert (status.id, status.state, status.attempts) == (task.id, TaskState.COMPLETED, 1)
        assert status.started_at is not None
        assert status.finished_at is not None
        assert before - 2 <= status.created_at <= status.started_at <= status.finished_at
        assert status.worker
        assert (status.error, status.next_retry_at) == ("", None)
        assert await self.value(pool.task(task.id)) == 7

    async def test_functions_of_every_sort(self, pool: BaseExecutor) -> None:
        assert await self.value(await pool(samples.add_async).enqueue(1)) == 2
        assert await self.value(await pool.enqueue(samples.add, 1, b=2)) == 3
        self.need(Can.SEND_FUNCTIONS)
        offset = 100
        closure = pool(lambda x: x + offset)
        with pytest.raises(CodecError, match="by_value=True"):
            await closure.enqueue(1)
        assert await self.value(await closure.options(by_value=True).enqueue(1)) == 101
        assert await self.value(await closure.options(by="value").enqueue(2)) == 102
        assert await self.value(await pool(by="value")(samples.add).enqueue(1)) == 2

    async def test_many_at_once(self, pool: BaseExecutor) -> None:
        tasks = await pool(samples.add).enqueue_many(range(20))
        assert [await self.value(task) for task in tasks] == list(range(1, 21))
        assert len({task.id for task in tasks}) == 20

    async def test_the_arguments_are_those_of_enqueue(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.COPY)
        value = [1, bytearray(100_000)]
        task = await pool(samples.echo).options(delay=0.1).enqueue(value)
        value.append(2)
        value[1][0] = 9  # type: ignore[index]
        assert await self.value(task) == [1, bytearray(100_000)]

    async def test_the_running_task(self, pool: BaseExecutor) -> None:
        task = await pool(samples.look).options(timeout=30).enqueue()
        id, _, function, remaining = await self.value(task)
        assert (id, function) == (task.id, f"{samples.__name__}:look")
        assert 20 < remaining <= 30
        own = await pool(samples.look).options(id="näme of its own").enqueue()
        assert (await self.value(own))[0] == own.id == "näme of its own"

    @pytest.mark.parametrize("id", ["", "x" * 161, "x" * 5000, "ü" * 81, "\ud800", None, 5])
    async def test_ids_that_no_task_can_have(self, pool: BaseExecutor, id: Any) -> None:
        """They come from addresses of web pages: what is too long must not reach the server."""
        with anyio.fail_after(5):
            with pytest.raises(TaskNotFoundError, match="1 to 160 bytes"):
                await pool.task(id).status()
            with pytest.raises(TaskNotFoundError, match="1 to 160 bytes"):
                await pool.dead.replay(id)
            assert await pool.dead.drop(id) is False
            assert await pool.unschedule(id) is False
        with pytest.raises(TaskNotFoundError):
            await pool.task("x" * 160).result(timeout=5)

    async def test_unknown_ids(self, pool: BaseExecutor) -> None:
        task = pool.task("0" * 32)
        for ask in (task.status, task.result, task.cancel):
            with pytest.raises(TaskNotFoundError) as caught:
                await ask()
            assert caught.value.task_id == task.id
        with pytest.raises(TaskNotFoundError):
            await anext(task.watch())

    async def test_watching(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await self.begin(pool, samples.report_and_hold, marks.path)
        seen: list[TaskStatus] = []
        with anyio.fail_after(LIMIT):
            async for status in task.watch():
                seen.append(status)
                if status.progress is not None and status.state is TaskState.RUNNING:
                    assert (await task.status()).progress == status.progress
                    marks.release()
        assert seen[-1].state is TaskState.COMPLETED
        steps = list(pairwise(seen))
        assert all(a.state is b.state or may_follow(a.state, b.state) for a, b in steps)
        told = [status.progress for status in seen if status.progress is not None]
        assert (told[0].fraction, told[0].text, told[0].data) == (0.5, "half", {"page": 1})
        assert [status async for status in task.watch()] == [await task.status()]

    async def test_the_last_progress_is_kept(self, pool: BaseExecutor) -> None:
        task = await pool(samples.report_often).enqueue(50)
        assert await self.value(task) == 50
        progress = (await task.status()).progress
        assert progress is not None
        assert progress.text == "step 50"

    async def test_a_listener_hears_of_progress(self, pool: BaseExecutor) -> None:
        told: list[str] = []
        report = pool(samples.report).options(on_progress=lambda update: told.append(update.text))
        assert await self.value(await report.enqueue())
        with anyio.fail_after(LIMIT):
            while told != ["half", "done"]:
                await anyio.sleep(0.002)

    async def test_listing(self, make: Factory, marks: Marks) -> None:
        pool = make()
        done = [(await pool(samples.add).enqueue(n)) for n in range(3)]
        for task in done:
            await self.value(task)
        waiting = await pool(samples.add).options(delay=60).enqueue(1)
        completed = {status.id async for status in pool.tasks(state="completed")}
        assert completed >= {task.id for task in done}
        assert waiting.id in [status.id async for status in pool.tasks(state=TaskState.SCHEDULED)]
        assert {status.id async for status in pool.tasks()} >= completed | {waiting.id}
        assert len([status async for status in pool.tasks(limit=2)]) == 2
        assert await waiting.cancel()
        with pytest.raises(ConfigurationError, match="completed"):
            await anext(pool.tasks(state="done"))
        with pytest.raises(ConfigurationError, match="limit=-1"):
            await anext(pool.tasks(limit=-1))
        with pytest.raises(ConfigurationError, match="limit=-1"):
            await pool.dead.list(limit=-1)
        assert [status async for status in pool.tasks(limit=0)] == []

    async def test_waiting_no_longer_than_wanted(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await self.held(pool, marks)
        with pytest.raises(CallTimeoutError):
            await task.result(timeout=0.05)
        marks.release()
        assert await self.value(task) == "call"

    async def test_many_wait_for_one(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await self.held(pool, marks)
        got: list[str] = []

        async def wait() -> None:
            got.append(await self.value(pool.task(task.id)))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            marks.release()
        assert got == ["call"] * 10
