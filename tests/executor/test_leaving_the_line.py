"""Who gives up a place in a line, wherever it is, costs the others nothing."""

from __future__ import annotations

import asyncio

import pytest

from genro_nats.config import PoolOptions
from genro_nats.errors import ExecutorError
from genro_nats.executor import admission
from genro_nats.executor.admission import Slots, Waiter
from genro_nats.executor.children.pool import ChildPool
from genro_nats.executor.children.work import Work
from genro_nats.executor.process_engine import pool_plan

MANY = 2000


class Counted:
    """Counts how often one is compared with another, which is what a search does."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)


class CountedWork(Counted, Work):
    def failed(self, error: Exception) -> None:
        pass


class CountedWaiter(Counted, Waiter):
    pass


@pytest.fixture(autouse=True)
def from_nought() -> None:
    Counted.compared = 0


async def queued() -> tuple[ChildPool, list[CountedWork]]:
    pool = ChildPool(pool_plan(PoolOptions(max_workers=1), name="p", kind="process"))
    pool._loop = asyncio.get_running_loop()
    works = [CountedWork(n.to_bytes(16, "big"), (), b"f") for n in range(MANY)]
    for work in works:
        pool.run(work)
    assert len(pool.queue) == MANY
    return pool, works


def test_a_queued_call_that_is_cancelled_is_not_searched_for() -> None:
    async def run() -> None:
        pool, works = await queued()
        for work in reversed(works[1:]):
            pool.cancel(work, ExecutorError("cancelled"))
        assert list(pool.queue) == works[:1]
        assert all(work.done for work in works[1:])

    asyncio.run(run())
    assert Counted.compared < MANY


def test_those_that_are_given_back_come_first_and_in_their_order() -> None:
    async def run() -> None:
        pool, works = await queued()
        pool.on_unstarted(back := [CountedWork(bytes(15) + bytes([n]), (), b"f") for n in (1, 2, 3)])
        assert list(map(id, pool.take_unstarted())) == list(map(id, back + works))
        assert not pool.queue

    asyncio.run(run())


def test_one_that_waits_for_admission_and_leaves_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "Waiter", CountedWaiter)
    slots = Slots("p", 1)
    slots.try_take()
    waiters = [waiter for _ in range(MANY) if (waiter := slots.try_take()) is not None]
    for waiter in reversed(waiters[1:]):
        slots._leave(waiter)
    assert slots.waiting == 1
    slots.release()
    assert waiters[0].admitted
    assert Counted.compared < MANY
