"""Conformance: single calls, their arguments, results and functions."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from genro_nats.errors import ExecutorError
from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, Factory, Marks, Running, SuiteBase

__all__ = ["CallTests", "FunctionTests"]


class CallTests(SuiteBase):
    """What is called, with what, and what comes back."""

    async def test_arguments_and_results(self, pool: BaseExecutor) -> None:
        assert await pool.submit(samples.add, 2) == 3
        assert await pool.submit(samples.add, 2, b=5) == 7
        value = {"a": [1, 2.5, None, "ü"], "b": (b"\0", {3}, 1 << 80)}
        assert await pool.submit(samples.echo, value) == value
        assert await pool.submit(samples.collect, 1, function=2, self=3, name=4, args=5) == (
            (1,),
            {"function": 2, "self": 3, "name": 4, "args": 5},
        )

    async def test_async_functions(self, pool: BaseExecutor) -> None:
        assert await pool.submit(samples.add_async, 2, b=5) == 7

    async def test_functions_of_every_sort(self, pool: BaseExecutor) -> None:
        assert await pool.submit(len, "four") == 4
        self.need(Can.SEND_FUNCTIONS)
        offset = 100

        def closure(x: int) -> int:
            return x + offset

        async def closure_async(x: int) -> int:
            return x + offset

        assert await pool.submit(lambda x: x * 2, 4) == 8
        assert await pool.submit(closure, 1) == 101
        assert await pool.submit(closure_async, 1) == 101
        assert await pool.submit(partial(samples.add, b=10), 1) == 11
        assert await pool.submit(samples.Scale(3).times, 5) == 15
        assert await pool.submit(samples.Scale(3).times_async, 5) == 15
        assert await pool.submit(samples.Scale(4), 5) == 20

    async def test_a_closure_is_sent_as_it_is_at_each_call(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        offset = 1

        def closure() -> int:
            return offset

        assert await pool.submit(closure) == 1
        offset = 2
        assert await pool.submit(closure) == 2

    async def test_many_calls_at_once_each_get_their_own_result(self, pool: BaseExecutor) -> None:
        async with anyio.create_task_group() as group:
            calls = [Running(group, pool.submit, samples.add, n) for n in range(100)]
            assert [await call.result() for call in calls] == list(range(1, 101))

    async def test_a_sync_function_does_not_block_its_caller(self, pool: BaseExecutor, marks: Marks) -> None:
        self.need(Can.RUN_BESIDE)
        async with anyio.create_task_group() as group:
            call = Running(group, pool.submit, samples.hold, marks.path)
            await marks.begun()
            assert not call.ended
            marks.release()
            assert await call.result() == "call"

    async def test_nothing_happens_before_the_await(self, pool: BaseExecutor) -> None:
        before = pool.metrics["submitted"]
        submitted: Any = pool.submit(samples.add, 1)
        assert pool.metrics["submitted"] == before
        assert await submitted == 2

    async def test_a_generator_function_has_to_be_streamed(self, pool: BaseExecutor) -> None:
        with pytest.raises(ExecutorError, match=r"numbers\.stream"):
            await pool.submit(samples.numbers, 3)


class FunctionTests(SuiteBase):
    """The decorator."""

    async def test_decorated(self, pool: BaseExecutor) -> None:
        add = pool(samples.add)
        assert await add(2, b=3) == 5
        assert add.local(2, 3) == 5
        assert add.executor is pool
        assert (add.__name__, add.__doc__, add.name) == ("add", None, f"{samples.__name__}:add")

    async def test_decorated_async(self, pool: BaseExecutor) -> None:
        add = pool(samples.add_async)
        assert await add(2, b=3) == 5
        assert await add.local(2, 3) == 5

    async def test_with_options(self, pool: BaseExecutor) -> None:
        add = pool(timeout=20, name="sums.add")(samples.add)
        assert add.name == "sums.add"
        assert await add(1) == 2
        look = pool(timeout=20)(samples.look)
        assert 10 < (await look())[3] <= 20
        assert 30 < (await look.options(timeout=40)())[3] <= 40

    async def test_several_pools_decorate_one_function(self, make: Factory) -> None:
        one, other = make(), make()
        first = one(samples.add)
        second = other(first)
        assert await second(1) == 2
        assert await first(1) == 2
        assert [pool.metrics["submitted"] for pool in (one, other)] == [1, 1]

    async def test_blocking_calls_from_threads(self, pool: BaseExecutor) -> None:
        add, later = pool(samples.add), pool(samples.add_async)

        def work() -> list[int]:
            return [add.call(1, b=2), later.call(3)]

        assert await anyio.to_thread.run_sync(work) == [3, 4]
        with pytest.raises(ExecutorError, match="would block the event loop"):
            add.call(1)
        assert await add(1) == 2

    async def test_blocking_calls_raise_what_the_function_raises(self, pool: BaseExecutor) -> None:
        fail = pool(samples.negative)
        with pytest.raises(ValueError, match="-1 is negative"):
            await anyio.to_thread.run_sync(fail.call, -1)

    async def test_decorated_functions_travel(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        add = pool(samples.add)
        assert await pool.submit(lambda: add.local(1)) == 2
        assert await pool.submit(add, 4) == 5

    async def test_a_call_in_its_own_pool_runs_where_it_is_made(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        here = pool(samples.where)

        def outer() -> tuple[Any, Any]:
            return here.call(), samples.where()

        inner_place, outer_place = await pool.submit(outer)
        assert inner_place == outer_place

    async def test_an_async_call_in_its_own_pool(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        add = pool(samples.add_async)

        async def outer() -> int:
            return await add(await add(1))

        assert await pool.submit(outer) == 3
