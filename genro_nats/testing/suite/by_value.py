"""Conformance: functions that nobody can import, and what they hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from genro_nats.errors import CodecError, ConfigurationError
from genro_nats.executor.base import BaseExecutor
from genro_nats.testing.suite import samples
from genro_nats.testing.suite.base import Can, Factory, Running, SuiteBase

__all__ = ["ByValueTests"]

PADDING = "x" * 3000  # too long for the function to travel with each call


def padded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, grown so large that it is sent apart from its calls."""

    def grown(*args: Any, **kwargs: Any) -> Any:
        assert len(PADDING) == 3000
        return function(*args, **kwargs)

    grown.padding = PADDING  # type: ignore[attr-defined]
    return grown


class ByValueTests(SuiteBase):
    """Whatever a function holds, each call has it as it is when the call is made."""

    async def test_changes_inside_of_a_closure_are_seen(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        numbers, settings, many, thing = [1], {"a": {"b": 1}}, list(range(1000)), samples.Scale(2)
        scale, limit = 1, 10

        def inner() -> int:
            return scale

        def closure(*, more: list[int] = [5]) -> Any:  # noqa: B006
            return numbers, settings["a"]["b"], sum(many), thing(1), inner(), limit, more

        grown = padded(closure)
        for function in (closure, grown):
            for change in (
                lambda: None,
                lambda: numbers.append(2),
                lambda: numbers.__setitem__(0, 9),
                lambda: settings["a"].update(b=2),
                lambda: many.__setitem__(500, 0),
                lambda: setattr(thing, "factor", 5),
                lambda: closure.__kwdefaults__["more"].append(6),  # type: ignore[index]
                lambda: setattr(closure, "__kwdefaults__", {"more": [7]}),
            ):
                change()
                assert await pool.submit(function) == function()
            scale += 1
            limit = limit * 2
            assert await pool.submit(function) == function()
            assert await pool.submit(function) == function()

    async def test_a_changed_array_is_seen(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        numpy: Any = pytest.importorskip("numpy")
        data = numpy.zeros(50_000)

        def total() -> float:
            return float(data.sum())

        assert await pool.submit(total) == 0.0
        data[40_000] = 3.0
        assert await pool.submit(total) == 3.0

    async def test_a_large_closure(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        numpy: Any = pytest.importorskip("numpy")
        data, array = bytes(range(256)) * 12_000, numpy.arange(400_000.0)

        def look(at: int) -> tuple[int, float, int]:
            return data[at], float(array[at]), len(data)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            async with anyio.create_task_group() as group:
                calls = [Running(group, pool.submit, look, n) for n in range(20)]
                found = [await call.result() for call in calls]
            assert found == [(n, float(n), len(data)) for n in range(20)]
            data = b"another"
            assert await pool.submit(look, 3) == (ord("t"), 3.0, 7)

    async def test_functions_that_hold_functions(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)

        def fact(n: int) -> int:
            return n * fact(n - 1) if n else 1

        def even(n: int) -> bool:
            return n == 0 or odd(n - 1)

        def odd(n: int) -> bool:
            return n != 0 and even(n - 1)

        class Point:
            weight = 3

            def __init__(self, x: int) -> None:
                self.x = x

            def scaled(self, by: int) -> int:
                return self.x * by * self.weight

            def __call__(self, by: int) -> int:
                return self.scaled(by)

        add = pool(samples.add)
        point = Point(2)
        for _ in range(2):
            assert await pool.submit(padded(fact), 5) == 120
            assert await pool.submit(padded(even), 10) is True
            assert await pool.submit(partial(padded(fact), 4)) == 24
            assert await pool.submit(point.scaled, 5) == 10 * Point.weight
            assert await pool.submit(point, 5) == 10 * Point.weight
            assert await pool.submit(padded(lambda: add.local(1))) == 2
            assert (await pool.submit(padded(Point), 7)).x == 7
            Point.weight += 1
        point.x = 4
        assert await pool.submit(point, 1) == 4 * Point.weight

    async def test_streams_and_coroutines(self, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        held = PADDING

        def blocks(count: int) -> Iterator[int]:
            yield from range(count + len(held) - 3000)

        async def later(x: int) -> int:
            await anyio.lowlevel.checkpoint() if not held else None
            return x + len(held)

        for _ in range(2):
            assert [n async for n in pool.stream(blocks, 3)] == [0, 1, 2]
            assert await pool.submit(later, 1) == 3001

    async def test_by_value_on_request(self, make: Factory, pool: BaseExecutor) -> None:
        self.need(Can.SEND_FUNCTIONS)
        assert await pool(by="value")(samples.add)(1) == 2
        assert await pool(samples.add).options(by="value")(2) == 3
        assert await pool(samples.Scale(3).times).options(by="value")(2) == 6
        assert await pool(by="value")(samples.add_async)(1) == 2
        if Can.TAKE_LIMITS not in self.lacks:
            assert await make(by="value").submit(samples.add, 4) == 5

    async def test_by_name_on_request(self, pool: BaseExecutor) -> None:
        assert await pool(by="name")(samples.add)(1) == 2
        with pytest.raises(ConfigurationError, match="by='size'"):
            pool(samples.add).options(by="size")  # type: ignore[arg-type]
        self.need(Can.IMPORT)
        with pytest.raises(CodecError, match=r"can't be sent by name.*importable module.*by=\"value\""):
            await pool(by="name")(lambda: 1)()
