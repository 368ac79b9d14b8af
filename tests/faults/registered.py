"""A module of a worker that runs registered functions only: what it decorates, and what it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from genro_nats import ExecutorRegistry, current_call

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
secret: ContextVar[str] = ContextVar("secret", default="kept")
started: list[str] = []

pool = ExecutorRegistry().executor("nats", name="registered", subject="faults", carry=[tenant])


@dataclasses.dataclass
class Order:
    id: int
    lines: list[str]


class OrderError(Exception):
    def __init__(self, order: Order) -> None:
        super().__init__("no lines", order.id)


@pool
def total(order: Order) -> Order:
    if not order.lines:
        raise OrderError(order)
    return Order(order.id, [*order.lines, tenant.get()])


@pool(name="sums.add", aliases=("sums.plus",))
def add(a: Any, b: Any = 1) -> Any:
    return a + b


@pool
def echo(value: Any) -> Any:
    return value


@pool
def steps(count: int) -> Iterator[int]:
    for number in range(count):
        current_call().progress((number + 1) / count, data={"step": (number,)})
        yield number


@pool
def resumed(path: str) -> Any:
    """Fails once with a checkpoint, and waits in between for nothing."""
    call = current_call()
    Path(path).touch()
    if call.attempt == 1:
        call.checkpoint({"at": (1, 2)})
        raise ValueError("once")
    return call.checkpointed


class Shop:
    @pool
    def name(self) -> str:
        return "the shop"


def unlisted(path: str) -> None:
    Path(path).touch()


def listed(a: int) -> int:
    return a * 2


def begin(word: str) -> None:
    started.append(word)


@pool
def begun() -> list[str]:
    return started
