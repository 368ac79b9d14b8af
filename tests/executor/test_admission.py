"""Admission: the decision, the line, the books."""

from __future__ import annotations

import itertools
import threading

import anyio
import pytest

from genro_nats import CallTimeoutError, ExecutorClosedError, ExecutorOverloadError, ThreadExecutor
from genro_nats.executor.admission import Decision, Slots, decide
from genro_nats.executor.bridge import spawn


@pytest.mark.parametrize(
    ("taken", "waiting", "may_wait", "closed"),
    list(itertools.product((0, 1, 2), (0, 1), (False, True), (False, True))),
)
def test_the_decision(taken: int, waiting: int, may_wait: bool, closed: bool) -> None:
    decision = decide(taken, waiting, 2, may_wait=may_wait, closed=closed)
    if closed:
        assert decision is Decision.CLOSED
    elif taken == 2 or waiting:
        assert decision is (Decision.WAIT if may_wait else Decision.REFUSE)
    else:
        assert decision is Decision.ADMIT


@pytest.mark.anyio
async def test_waiters_are_served_in_order_and_a_cancelled_one_leaks_nothing() -> None:
    slots = Slots("p", 1)
    await slots.take()
    order: list[int] = []

    async def take(number: int) -> None:
        await slots.take()
        order.append(number)

    tasks = []
    with anyio.fail_after(5):
        for number in range(4):  # trio begins tasks in any order
            tasks.append(spawn(take, number))
            while slots.waiting <= number:
                await anyio.sleep(0)
        tasks[1].cancel()
        await tasks[1].done.wait()
        for done in (1, 2, 3):
            slots.release()
            while len(order) < done:
                await anyio.sleep(0)
    assert order == [0, 2, 3]
    slots.release()
    assert (slots.taken, slots.waiting) == (0, 0)


@pytest.mark.anyio
async def test_a_waiter_cancelled_after_its_turn_came_passes_the_slot_on() -> None:
    slots = Slots("p", 1)
    await slots.take()
    first, second = spawn(slots.take), spawn(slots.take)
    with anyio.fail_after(5):
        while slots.waiting < 2:
            await anyio.sleep(0)
        slots.release()
        first.cancel()
        await first.done.wait()
        if slots.waiting:  # the first had it already
            slots.release()
        await second.done.wait()
    second.result()
    assert slots.taken == 1


@pytest.mark.anyio
async def test_closing_fails_the_waiters_and_the_newcomers() -> None:
    slots = Slots("p", 1)
    await slots.take()
    waiting = spawn(slots.take)
    with anyio.fail_after(5):
        while not slots.waiting:
            await anyio.sleep(0)
        slots.close()
        await waiting.done.wait()
    with pytest.raises(ExecutorClosedError):
        waiting.result()
    with pytest.raises(ExecutorClosedError):
        slots.try_take()


@pytest.mark.anyio
async def test_slots_are_shared_with_other_threads() -> None:
    slots = Slots("p", 1)
    slots.try_take()
    threading.Timer(0.02, slots.release).start()
    with anyio.fail_after(5):
        await slots.take()
    waiter = slots.try_take()
    assert waiter is not None
    with pytest.raises(CallTimeoutError):
        slots.wait_blocking(waiter, 0.01, "f")
    assert slots.waiting == 0


@pytest.mark.anyio
async def test_overload_fails_fast_with_its_facts() -> None:
    release = threading.Event()
    async with ThreadExecutor("hot", max_pending=1, overload="fail") as pool:
        running = spawn(pool.submit, release.wait, 5)
        with anyio.fail_after(5):
            while pool.metrics["pending"] == 0:
                await anyio.sleep(0)
            with pytest.raises(ExecutorOverloadError) as caught:
                await pool.submit(int)
            release.set()
            await running.done.wait()
        error = caught.value
        assert str(error) == "Executor 'hot' has 1 pending tasks."
        assert (error.executor, error.max_pending, error.retry_after, error.retryable) == (
            "hot",
            1,
            1.0,
            True,
        )
        facts = pool.metrics
        assert (facts["submitted"], facts["completed"], facts["rejected"]) == (1, 1, 1)


@pytest.mark.anyio
async def test_the_timeout_covers_the_wait_for_admission() -> None:
    release = threading.Event()
    async with ThreadExecutor("hot", max_pending=1) as pool:
        running = spawn(pool.submit, release.wait, 5)
        with anyio.fail_after(5):
            while pool.metrics["pending"] == 0:
                await anyio.sleep(0)
            with pytest.raises(CallTimeoutError):
                await pool(int).options(timeout=0.02)()
            release.set()
            await running.done.wait()
        facts = pool.metrics
        assert (facts["submitted"], facts["completed"], facts["failed"], facts["timed_out"]) == (2, 1, 1, 1)
        assert await pool.submit(int) == 0
