"""What every part of the suite stands on: the executor under test, what it lacks, bounded waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import anyio
import pytest
from anyio.abc import TaskGroup

from genro_nats.executor.base import BaseExecutor

__all__ = ["Can", "Factory", "Marks", "Running", "SuiteBase", "until"]

T = TypeVar("T")
Factory = Callable[..., BaseExecutor]
LIMIT = 10.0  # seconds that any state may take to come


class Can(StrEnum):
    """What not every kind of executor can do. A suite's ``lacks`` says what its kind can't, and why."""

    RUN_BESIDE = "run sync functions beside the caller"
    END_SYNC = "end the wait for a sync function"
    TELL_SYNC = "show a sync function that it was cancelled"
    COPY = "give the function copies of its arguments"
    IMPORT = "look functions up where they run"
    SEND_FUNCTIONS = "send functions that stand in no module of the other side"
    SHARE_CONTEXT = "show the function every context variable of the caller"
    CARRY = "carry the context variables it was given"
    INITIALISE = "run an initializer given to the executor"
    TAKE_LIMITS = "take limits of its own (max_pending, overload)"
    SHOW_METRICS = "count its calls"
    QUEUE_TASKS = "keep a task waiting that is due"
    LOSE_CHILDREN = "survive the death of the process that runs a call"


class SuiteBase:
    """Subclass the suite and give it ``make_executor``.

    ``lacks``: what the kind can't do, with the reason; the tests of it are skipped
    with that reason. ``initialised_per``: where an initializer runs once.
    """

    lacks: ClassVar[Mapping[Can, str]] = {}
    initialised_per: ClassVar[Literal["process", "thread"]] = "process"

    @pytest.fixture
    def make_executor(self) -> Factory:
        """A function that makes an executor with the options given, not yet started."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture make_executor")

    @pytest.fixture
    async def make(self, make_executor: Factory) -> AsyncIterator[Factory]:
        """``make_executor``; what it made is shut down after the test."""
        made: list[BaseExecutor] = []

        def make(**options: Any) -> BaseExecutor:
            made.append(make_executor(**options))
            return made[-1]

        yield make
        for executor in made:
            await executor.shutdown(wait=False)

    @pytest.fixture
    async def pool(self, make: Factory) -> BaseExecutor:
        """An executor without options."""
        return make()

    @pytest.fixture
    def marks(self, tmp_path: Path) -> Marks:
        """Files by which functions and tests tell each other how far they are."""
        return Marks(tmp_path)

    def need(self, *capabilities: Can) -> None:
        """Skip the test if the kind lacks one of them."""
        for capability in capabilities:
            if capability in self.lacks:
                pytest.skip(f"can't {capability.value}: {self.lacks[capability]}")


class Marks:
    """A directory in which the functions of ``samples`` leave their marks."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._path = path

    def has(self, name: str) -> bool:
        """Was the mark made?"""
        return (self._path / name).exists()

    def size(self, name: str) -> int:
        """Bytes in the mark; 0 without it."""
        return (self._path / name).stat().st_size if self.has(name) else 0

    def text(self, name: str) -> str:
        """What the mark says; "" without it."""
        return (self._path / name).read_text() if self.has(name) else ""

    def all(self, pattern: str) -> list[Path]:
        """The marks whose names match."""
        return list(self._path.glob(pattern))

    def release(self) -> None:
        """Let held calls end."""
        (self._path / "release").touch()

    async def begun(self, name: str = "call") -> None:
        """Wait until the held call of that name runs."""
        await until(lambda: self.has(f"{name}.begun"))


class Running(Generic[T]):
    """A call made in a task of its own."""

    def __init__(self, group: TaskGroup, call: Callable[..., Awaitable[T]], *args: Any) -> None:
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._error: Exception | None = None
        self._value: T
        group.start_soon(self._main, call, args)

    async def _main(self, call: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        with self._scope:
            try:
                self._value = await call(*args)
            except Exception as error:
                self._error = error
        self._ended.set()

    async def cancel(self) -> None:
        """Cancel it, and wait until the caller has its task back."""
        self._scope.cancel()
        with anyio.fail_after(LIMIT):
            await self._ended.wait()
        assert self._scope.cancelled_caught, "the call ended otherwise than by being cancelled"

    @property
    def ended(self) -> bool:
        """Has it ended?"""
        return self._ended.is_set()

    async def result(self) -> T:
        """Its value; raises what it raised."""
        with anyio.fail_after(LIMIT):
            await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._value


async def until(condition: Callable[[], bool], limit: float = LIMIT) -> None:
    """Wait for a state, ``limit`` seconds at most (TimeoutError)."""
    with anyio.fail_after(limit):
        while not condition():
            await anyio.sleep(0.002)
