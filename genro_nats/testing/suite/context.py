"""Conformance: the running call, context variables, initializers."""

from __future__ import annotations

import anyio
import pytest

from genro_nats.errors import ExecutorError
from genro_nats.executor.base import BaseExecutor
from genro_nats.message import ProgressUpdate
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, Factory, Marks, Running, SuiteBase, until

__all__ = ["ContextTests"]


class ContextTests(SuiteBase):
    """What a function sees of its call and its caller."""

    async def test_the_running_call(self, pool: BaseExecutor) -> None:
        looks = [await pool.submit(samples.look) for _ in range(2)]
        assert len({id for id, *_ in looks}) == 2
        for id, trace_id, function, remaining in looks:
            assert len(bytes.fromhex(id)) == 16
            assert trace_id == id
            assert function == f"{samples.__name__}:look"
            assert remaining == float("inf")

    async def test_a_call_inside_a_call_shares_its_trace(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        look = pool(samples.look)

        def outer() -> tuple[object, object]:
            return samples.look(), look.call()

        mine, inner = await pool.submit(outer)
        assert isinstance(mine, tuple)
        assert isinstance(inner, tuple)
        assert mine[1] == inner[1] == mine[0]
        assert inner[0] != mine[0]

    async def test_progress_reaches_the_caller(self, pool: BaseExecutor) -> None:
        seen: list[ProgressUpdate] = []
        assert await pool(samples.report).options(on_progress=seen.append)()
        await until(lambda: len(seen) == 2)
        assert seen == [ProgressUpdate(0.5, "half", {"page": 1}), ProgressUpdate(1.0, "done")]
        assert await pool.submit(samples.report)  # and nobody has to listen

    async def test_progress_of_a_stream(self, pool: BaseExecutor) -> None:
        seen: list[ProgressUpdate] = []
        numbers = pool(samples.report_and_yield).options(on_progress=seen.append)
        assert [x async for x in numbers.stream()] == [1]
        await until(lambda: len(seen) == 2)

    async def test_a_listener_that_raises_breaks_nothing(self, pool: BaseExecutor) -> None:
        def listener(update: ProgressUpdate) -> None:
            raise ValueError("a listener")

        assert await pool(samples.report).options(on_progress=listener)()

    async def test_every_context_variable(self, pool: BaseExecutor) -> None:
        self.need(Can.SHARE_CONTEXT)
        token = samples.tenant.set("ada")
        try:
            assert await pool.submit(samples.read_tenant) == "ada"
            assert await pool.submit(samples.read_tenant_async) == "ada"
        finally:
            samples.tenant.reset(token)
        assert await pool.submit(samples.read_tenant) == "nobody"

    async def test_carried_context_variables(self, make: Factory) -> None:
        self.need(Can.CARRY)
        pool = make(carry=(samples.tenant,))
        assert await pool.submit(samples.read_tenant) == "nobody"
        token = samples.tenant.set("ada")
        try:
            assert await pool.submit(samples.read_tenant) == "ada"
            assert await pool.submit(samples.read_tenant_async) == "ada"
        finally:
            samples.tenant.reset(token)
        assert await pool.submit(samples.read_tenant) == "nobody"

    async def test_the_initializer_runs_once(self, make: Factory, marks: Marks) -> None:
        self.need(Can.INITIALISE)
        pool = make(initializer=samples.initialise, initargs=(marks.path, "hello"), max_workers=2)
        async with anyio.create_task_group() as group:
            calls = [Running(group, pool.submit, samples.initialised, marks.path) for _ in range(20)]
            for call in calls:
                pid, counts, greeting = await call.result()
                assert greeting == "hello"
                assert max(counts) == 1, f"process {pid} ran it more than once in a thread"
                assert self.initialised_per == "thread" or len(counts) == 1

    async def test_an_initializer_that_raises(self, make: Factory) -> None:
        self.need(Can.INITIALISE)
        pool = make(initializer=samples.fail_fussy, max_workers=1)
        with anyio.fail_after(20), pytest.raises((ExecutorError, samples.Fussy), match="code 7"):
            await pool.submit(samples.add, 1)
        assert (pool.metrics["failed"], pool.metrics["pending"]) == (1, 0)
