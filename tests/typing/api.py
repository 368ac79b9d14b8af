"""What type checkers accept and reject; checked by mypy with warn_unused_ignores, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import assert_type

from genro_nats import (
    CoroutineFunction,
    ExecutorRegistry,
    Function,
    Mapped,
    ProgressUpdate,
    Stream,
    SubmittedTask,
    TaskHandle,
    TaskManager,
    TaskStatus,
)

registry = ExecutorRegistry()
pool = registry.executor("nats", name="heavy", subject="tasks.heavy")
other = registry.executor(name="other")


@pool
def render(page: int, scale: float = 1.0) -> str:
    return "x" * page


@pool(timeout=30, name="reports.fetch", aliases=["old.fetch"])
async def fetch(url: str) -> bytes:
    return url.encode()


@pool(by="value")
def shipped(page: int) -> str:
    return "x" * page


@other
@pool
def both(page: int) -> str:
    return ""


@pool
def pages(count: int) -> Iterator[bytes]:
    yield b""


@pool
def made(count: int) -> Generator[int, None, None]:
    yield 1


@pool
async def rows(query: str) -> AsyncIterator[dict[str, int]]:
    yield {}


class Shop:
    @pool
    def price(self, net: int) -> float:
        return net * 1.2


def listener(update: ProgressUpdate) -> None: ...


async def accepted() -> None:
    assert_type(await render(1), str)
    assert_type(await render(1, scale=2.0), str)
    assert_type(render.call(1), str)
    assert_type(render.local(1), str)
    assert_type(await fetch("u"), bytes)
    assert_type(fetch.call("u"), bytes)
    assert_type(await fetch.local("u"), bytes)
    assert_type(await both(1), str)
    assert_type(both.local(1), str)
    assert_type(render.map([1, 2]), Mapped[str])
    assert_type(fetch.map(["u"], concurrency=3, ordered=False), Mapped[bytes])
    async for text in render.map(range(3)):
        assert_type(text, str)
    assert_type(pages.stream(1), Stream[bytes])
    assert_type(made.stream(1), Stream[int])
    assert_type(rows.stream("q"), Stream[dict[str, int]])
    async with pages.stream(1) as stream:
        async for chunk in stream:
            assert_type(chunk, bytes)
    assert_type(await render.options(timeout=3, on_progress=listener)(1), str)
    assert_type(await fetch.options(timeout=3).local("u"), bytes)
    assert_type(await shipped(1), str)
    assert_type(await render.options(by="name")(1), str)
    assert_type(await shipped.options(by="value").enqueue(1), TaskHandle[str])
    assert_type(await Shop().price(3), float)
    assert_type(await Shop.price(Shop(), 3), float)
    assert_type(pool.map(len, ["a"]), Mapped[int])
    assert_type(pool.map(fetch, ["a"]), Mapped[bytes])
    function: Function[[str], bytes] = fetch
    same: CoroutineFunction[[str], bytes] = fetch
    plain: Callable[[int], object] = render
    print(function, same, plain)


async def accepted_tasks(tasks: TaskManager) -> None:
    task = await render.enqueue(1, scale=2.0)
    assert_type(task, TaskHandle[str])
    assert_type(await task.result(timeout=3), str)
    assert_type(await (await fetch.enqueue("u")).result(), bytes)
    assert_type(await pool.enqueue(render, 1), TaskHandle[str])
    assert_type(await pool.enqueue(len, "a"), TaskHandle[int])
    assert_type(await fetch.enqueue_many(["u"]), list[TaskHandle[bytes]])
    assert_type(await (await Shop().price.enqueue(3)).result(), float)
    options = render.options(delay=3, priority="high", retries=2, retry_on=(OSError, "a:B"), timeout=5)
    assert_type(await options.enqueue(1), TaskHandle[str])
    async for status in task.watch():
        assert_type(status, TaskStatus)
    wide: TaskHandle[object] = task
    await render.schedule("nightly", cron="0 3 * * *", timezone="Europe/Rome", args=(1,))
    assert_type(tasks.submit(render, 1, scale=2.0), SubmittedTask[str])
    assert_type(tasks.submit(fetch, "u"), SubmittedTask[bytes])
    assert_type(tasks.submit(len, "a"), SubmittedTask[int])
    assert_type(await tasks.submit(len, "a"), SubmittedTask[int])
    assert_type(await tasks.submit(len, "a").result(), int)
    assert_type(await tasks.list("failed"), list[TaskStatus])
    print(wide)


async def rejected() -> None:
    await render("x")  # type: ignore[arg-type]
    await render(1, size=2)  # type: ignore[call-arg]
    await render()  # type: ignore[call-arg]
    render.call("x")  # type: ignore[arg-type]
    render.local("x")  # type: ignore[arg-type]
    fetch.call(3)  # type: ignore[arg-type]
    render.map(["x"])  # type: ignore[list-item]
    pool.map(render, ["x"])  # type: ignore[arg-type]
    render.stream(1)  # type: ignore[misc]
    pages.stream("x")  # type: ignore[arg-type]
    render.options(timout=3)  # type: ignore[call-arg]
    render.options(timeout="soon")  # type: ignore[arg-type]
    await Shop().price("x")  # type: ignore[arg-type]
    pool(5)  # type: ignore[call-overload]
    pool(timeout="soon")  # type: ignore[call-overload]
    pool(by="digest")  # type: ignore[call-overload]
    render.options(by="digest")  # type: ignore[arg-type]
    render(1)  # type: ignore[unused-coroutine]


async def rejected_tasks(tasks: TaskManager) -> None:
    await render.enqueue("x")  # type: ignore[arg-type]
    await render.enqueue(1, size=2)  # type: ignore[call-arg]
    await render.enqueue()  # type: ignore[call-arg]
    await fetch.enqueue(3)  # type: ignore[arg-type]
    await fetch.enqueue_many([3])  # type: ignore[list-item]
    await Shop().price.enqueue("x")  # type: ignore[arg-type]
    render.options(retrys=3)  # type: ignore[call-arg]
    render.options(retries="3")  # type: ignore[arg-type]
    render.options(priority="urgent")  # type: ignore[arg-type]
    await pool.enqueue(len, 3)  # type: ignore[call-overload]
    tasks.submit(len, 3)  # type: ignore[call-overload]
    tasks.submit(render, "x")  # type: ignore[call-overload]
    narrow: TaskHandle[int] = await render.enqueue(1)  # type: ignore[assignment]
    print(narrow)
