"""Conformance: how tasks fail, are tried again, are cancelled and die."""

from __future__ import annotations

import time

import anyio
import pytest

from genro_nats.errors import TaskCancelledError, TaskFailedError, TaskNotFoundError
from genro_nats.executor.base import BaseExecutor
from genro_nats.tasks.status import TaskState
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import LIMIT, Can, Factory, Marks, until
from genro_nats.testing.suite.tasks import TaskBase

__all__ = ["CancelTests", "DeadLetterTests", "RetryTests"]


class RetryTests(TaskBase):
    """Another attempt, as often and as late as asked."""

    async def test_a_failure_is_the_function_s_own_exception(self, pool: BaseExecutor) -> None:
        task = await pool(samples.negative).enqueue(-1)
        with pytest.raises(ValueError, match="-1 is negative"):
            await self.value(task)
        status = await task.status()
        assert (status.state, status.attempts) == (TaskState.FAILED, 1)
        assert "-1 is negative" in status.error

    async def test_tried_until_it_works(self, pool: BaseExecutor) -> None:
        task = await pool(samples.fail_before).options(retries=4, backoff=0.01).enqueue(3)
        assert await self.value(task) == (3, task.id)
        status = await task.status()
        assert (status.state, status.attempts, status.error) == (TaskState.COMPLETED, 3, "")

    async def test_tried_no_more_than_asked(self, pool: BaseExecutor) -> None:
        task = await pool(samples.fail_before).options(retries=2, backoff=0.01).enqueue(9)
        with pytest.raises(ValueError, match="attempt 3"):
            await self.value(task)
        assert (await task.status()).attempts == 3

    @pytest.mark.parametrize(
        ("options", "attempts"),
        [
            ({"retry_on": KeyError}, 1),
            ({"retry_on": (KeyError, ArithmeticError, "builtins:Exception")}, 3),
            ({"give_up_on": "builtins:ValueError"}, 1),
            ({"give_up_on": KeyError}, 3),
        ],
    )
    async def test_only_what_is_worth_it(
        self, pool: BaseExecutor, options: dict[str, object], attempts: int
    ) -> None:
        task = await self.begin(pool, samples.negative, -1, retries=2, backoff=0.01, **options)
        with pytest.raises(ValueError, match="-1 is negative"):
            await self.value(task)
        assert (await task.status()).attempts == attempts

    async def test_what_cannot_be_rebuilt_is_known_by_its_class(self, pool: BaseExecutor) -> None:
        name = f"{samples.__name__}:Unportable"
        task = await self.begin(pool, samples.fail_unportable, retries=1, backoff=0.01, retry_on=name)
        with pytest.raises(Exception, match="has a lock"):
            await self.value(task)
        assert (await task.status()).attempts == 2

    async def test_the_function_says_when(self, pool: BaseExecutor) -> None:
        task = await self.begin(pool, samples.later, 0.3, retries=1, backoff=0)
        waiting = await self.reach(task, TaskState.SCHEDULED) if not self.beside else None
        assert await self.value(task) == 2
        status = await task.status()
        assert status.started_at is not None
        assert status.started_at - status.created_at >= 0.29
        if waiting is not None:
            assert waiting.next_retry_at is not None
            assert waiting.next_retry_at == pytest.approx(status.started_at, abs=0.25)

    async def test_a_checkpoint_reaches_the_next_attempt(self, pool: BaseExecutor) -> None:
        task = await pool(samples.go_on).options(retries=5, backoff=0.01).enqueue(3)
        assert await self.value(task) == [1, 2, 3]

    async def test_each_attempt_has_its_time(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await self.begin(pool, samples.hold_async, marks.path, timeout=0.2, retries=1, backoff=0.01)
        with pytest.raises(TaskFailedError) as caught:
            await self.value(task)
        assert "deadline" in caught.value.reason
        assert (await task.status()).attempts == 2

    async def test_a_death_is_no_failure(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.LOSE_CHILDREN)
        task = await pool(samples.die).enqueue(marks.path, 2)
        assert await self.value(task) == 3
        assert (await task.status()).attempts == 3

    async def test_three_deaths_are_enough(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.LOSE_CHILDREN)
        task = await pool(samples.die).options(retries=9).enqueue(marks.path, 9)
        with pytest.raises(TaskFailedError) as caught:
            await self.value(task)
        assert "died 3 times" in caught.value.reason
        assert marks.size("deaths") == 3
        letter = next(letter for letter in await pool.dead.list() if letter.id == task.id)
        assert (letter.deaths, letter.attempts, letter.reason) == (3, 3, caught.value.reason)
        assert await pool.dead.drop(task.id)
        assert await self.value(await pool(samples.add).enqueue(1)) == 2


class CancelTests(TaskBase):
    """Whatever its state: True means that it ended cancelled."""

    async def check(self, pool: BaseExecutor, id: str) -> None:
        """It is settled as cancelled, for whoever asks."""
        assert (await pool.task(id).status()).state is TaskState.CANCELLED
        with pytest.raises(TaskCancelledError):
            await self.value(pool.task(id))

    async def test_while_it_is_scheduled(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await pool(samples.note).options(delay=0.2).enqueue(marks.path, "late")
        assert await task.cancel()
        await self.check(pool, task.id)
        await anyio.sleep(0.3)  # when it would have run
        assert not marks.has("order")

    async def test_while_it_waits(self, make: Factory, marks: Marks) -> None:
        self.need(Can.QUEUE_TASKS)
        pool = make(**self.single)
        first = await self.held(pool, marks)
        task = await pool(samples.note).enqueue(marks.path, "second")
        assert await task.cancel()
        await self.check(pool, task.id)
        marks.release()
        assert await self.value(first) == "call"
        assert await self.value(await pool(samples.note).enqueue(marks.path, "third")) == "third"
        assert marks.size("order") == len("third\n")

    async def test_an_async_function_that_runs(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await self.held(pool, marks)
        assert await task.cancel()
        await self.check(pool, task.id)
        await until(lambda: marks.has("call.ended"))
        assert await self.value(await pool(samples.add).enqueue(1)) == 2

    async def test_a_sync_function_that_looks(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await self.begin(pool, samples.watch_cancelled, marks.path)
        await marks.begun()
        assert await task.cancel()
        await self.check(pool, task.id)
        await until(lambda: marks.has("told"))

    async def test_a_sync_function_that_does_not_look(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.END_SYNC)
        task = await self.begin(pool, samples.hold, marks.path)
        await marks.begun()
        begun = time.monotonic()
        assert await task.cancel()
        assert time.monotonic() - begun < LIMIT
        await self.check(pool, task.id)
        marks.release()
        assert await self.value(await pool(samples.add).enqueue(1)) == 2

    async def test_between_two_attempts(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.QUEUE_TASKS)
        task = await pool(samples.later).options(retries=1).enqueue(60.0)
        await self.reach(task, TaskState.SCHEDULED)
        assert await task.cancel()
        await self.check(pool, task.id)

    async def test_too_late(self, pool: BaseExecutor) -> None:
        task = await pool(samples.add).enqueue(1)
        assert await self.value(task) == 2
        before = await task.status()
        assert not await task.cancel()
        assert await task.status() == before
        assert await self.value(task) == 2


class DeadLetterTests(TaskBase):
    """What failed for good is kept with its call."""

    async def test_list_replay_and_drop(self, pool: BaseExecutor, marks: Marks) -> None:
        task = await pool(samples.negative).options(retries=1, backoff=0.01).enqueue(-1)
        with pytest.raises(ValueError, match="negative"):
            await self.value(task)
        letter = next(letter for letter in await pool.dead.list() if letter.id == task.id)
        assert letter.function == f"{samples.__name__}:negative"
        assert (letter.attempts, letter.deaths) == (2, 0)
        assert "-1 is negative" in letter.error
        assert "2 attempts" in letter.reason
        again = await pool.dead.replay(task.id)
        assert again.id != task.id
        with pytest.raises(ValueError, match="negative"):
            await self.value(again)
        letters = [letter.id for letter in await pool.dead.list()]
        assert again.id in letters
        assert task.id not in letters
        assert await pool.dead.drop(again.id)
        assert not await pool.dead.drop(again.id)

    async def test_replaying_what_is_not_there(self, pool: BaseExecutor) -> None:
        with pytest.raises(TaskNotFoundError):
            await pool.dead.replay("nothing")

    async def test_what_ended_well_is_no_dead_letter(self, pool: BaseExecutor) -> None:
        done = await pool(samples.add).enqueue(1)
        assert await self.value(done) == 2
        gone = await pool(samples.add).options(delay=60).enqueue(1)
        assert await gone.cancel()
        assert not {done.id, gone.id} & {letter.id for letter in await pool.dead.list()}
