"""map: bounded, ordered or not, ended early."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from genro_nats import AsyncExecutor, ConfigurationError
from genro_nats.executor.bridge import spawn

pytestmark = pytest.mark.anyio


class Work:
    """Calls that end when told; counts how many run at once."""

    def __init__(self) -> None:
        self.pool = AsyncExecutor("m")
        self.running: set[int] = set()
        self.peak = 0
        self.cancelled: list[int] = []
        self.gates: dict[int, anyio.Event] = {}

    async def __call__(self, item: int) -> int:
        self.running.add(item)
        self.peak = max(self.peak, len(self.running))
        try:
            if item in self.gates:
                await self.gates[item].wait()
            else:
                await anyio.sleep(0)
        except BaseException:
            self.cancelled.append(item)
            raise
        finally:
            self.running.discard(item)
        if item < 0:
            raise ValueError(item)
        return item

    def map(self, items: Any, **how: Any) -> Any:
        return self.pool.map(self, items, **how)


@pytest.fixture
def work() -> Work:
    return Work()


async def until(condition: Any) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await anyio.sleep(0)
        yield number


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3, 200])
async def test_every_item_once(work: Work, ordered: bool, count: int) -> None:
    for items in (range(count), numbers(count)):
        results = [x async for x in work.map(items, concurrency=4, ordered=ordered)]
        assert (results if ordered else sorted(results)) == list(range(count))
    assert work.peak == 4 if count == 200 else work.peak <= 4


async def test_as_completed_and_in_order(work: Work) -> None:
    work.gates[0] = anyio.Event()
    mapped = work.map(range(3), ordered=False)
    assert {await anext(mapped), await anext(mapped)} == {1, 2}
    work.gates[0].set()
    assert await anext(mapped) == 0
    work.gates[0] = anyio.Event()
    mapped = work.map(range(3))
    first = spawn(anext, mapped)
    await until(lambda: work.running == {0})
    assert not first.done.is_set
    work.gates[0].set()
    assert [first_result async for first_result in _after(first, mapped)] == [0, 1, 2]


async def _after(first: Any, rest: Any) -> AsyncIterator[int]:
    await first.done.wait()
    yield first.result()
    async for item in rest:
        yield item


async def test_the_input_is_taken_only_as_far_as_needed(work: Work) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    mapped = work.map(items(), concurrency=2)
    assert taken == []
    assert await anext(mapped) == 0
    for _ in range(50):
        await anyio.sleep(0)
    assert len(taken) <= 2 * 2 + 1
    await mapped.aclose()


async def test_the_first_error_raises_at_its_place_and_cancels_the_rest(work: Work) -> None:
    work.gates = {7: anyio.Event(), -3: anyio.Event()}
    mapped = work.map([1, 2, -3, 7, 8, 9, 10, 11, 12, 13], concurrency=4)
    assert [await anext(mapped), await anext(mapped)] == [1, 2]
    await until(lambda: work.running == {7, -3})
    work.gates[-3].set()
    with pytest.raises(ValueError, match="-3"):
        await anext(mapped)
    assert work.cancelled == [7]
    assert work.running == set()
    with pytest.raises(StopAsyncIteration):
        await anext(mapped)


async def test_an_error_of_the_input_raises_at_its_place(work: Work) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("input")

    mapped = work.map(items())
    assert await anext(mapped) == 1
    with pytest.raises(KeyError, match="input"):
        await anext(mapped)
    with pytest.raises(TypeError):
        await anext(work.map(5))


@pytest.mark.parametrize("how", ["aclose", "with", "drop", "cancel"])
async def test_leaving_early_cancels_what_is_in_flight(work: Work, how: str) -> None:
    work.gates = {1: anyio.Event(), 2: anyio.Event()}
    mapped = work.map(range(3), concurrency=3)
    assert await anext(mapped) == 0
    await until(lambda: work.running == {1, 2})
    if how == "aclose":
        await mapped.aclose()
        assert work.running == set()
    elif how == "with":
        async with mapped:
            pass
    elif how == "cancel":
        with anyio.move_on_after(0.01):
            await anext(mapped)
    del mapped
    gc.collect()
    await until(lambda: sorted(work.cancelled) == [1, 2])
    await until(lambda: work.pool.metrics["pending"] == 0)


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, float("inf"), "3", True])
async def test_a_wrong_concurrency(work: Work, concurrency: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"concurrency is {concurrency!r}: use a whole number"):
        work.map([], concurrency=concurrency)
