"""The pools of an application, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self

from genro_nats.config import ALIASES, KINDS, ConfigSource, Resolved, conflict, requested, resolve
from genro_nats.executor.base import BaseExecutor
from genro_nats.executor.bridge import Spawned, spawn

__all__ = ["ExecutorRegistry"]

Factory = Callable[..., BaseExecutor]
_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "inline": ("inline", "InlineExecutor"),
    "thread": ("thread", "ThreadExecutor"),
    "process": ("process", "ProcessExecutor"),
    "async": ("async_", "AsyncExecutor"),
    "async-process": ("process", "AsyncProcessExecutor"),
    "nats": ("nats", "NatsExecutor"),
}
_DEFAULT: Final = "local"  # what get_or_create has always made


class ExecutorRegistry:
    """Makes pools, gives the same one for the same name, starts and ends them all.

    ``config``: what overrides the code (``executors.toml``, ``GENRO_POOL_<NAME>``); by
    default that of this process. May be used from several threads. Starts nothing
    by itself: pools start at their first call, or with ``async with registry``.
    """

    def __init__(self, config: ConfigSource | None = None) -> None:
        self._config = config or ConfigSource()
        self._lock = threading.RLock()
        self._pools: dict[str, BaseExecutor] = {}
        self._requested: dict[str, Mapping[str, Any]] = {}
        self._factories: dict[str, Factory] = {}

    def executor(self, kind: str | None = None, *, name: str = "default", **options: Any) -> BaseExecutor:
        """The pool of that name; a new one, of ``kind`` (default: process), if there is none.

        Configuration wins over ``kind`` and ``options``.
        Raises ConfigurationError for an unknown kind or option, a wrong value, and options
        that differ from those the pool was first asked for.
        """
        with self._lock:
            pool = self._pools.get(name)
            if pool is not None:
                conflict(name, self._requested[name], requested(kind, options, self._kinds))
                return pool
            plan = resolve(name, kind, options, self._config, kinds=self._kinds, known=self._ours)
            pool = self._pools[name] = self._made(name, plan)
            self._requested[name] = plan.requested
            return pool

    def remote(self, subject: str, *, name: str | None = None, **options: Any) -> BaseExecutor:
        """A pool of kind nats for a subject, as a decorator: ``@executors.remote("tasks.heavy")``."""
        return self.executor("nats", name=name or subject, subject=subject, **options)

    def get_or_create(self, name: str, executor_type: str = _DEFAULT, **options: Any) -> BaseExecutor:
        """``executor`` with the former order of arguments; "local" takes an existing pool of any kind."""
        return self.executor(None if executor_type == _DEFAULT else executor_type, name=name, **options)

    def get(self, name: str) -> BaseExecutor | None:
        """The pool of that name, if there is one."""
        return self._pools.get(name)

    def register_factory(self, executor_type: str, factory: Factory) -> None:
        """Make pools of ``executor_type`` by ``factory(name=name, **options)``; may replace one of ours."""
        with self._lock:
            self._factories[executor_type] = factory

    @property
    def _kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*KINDS, *self._factories)))

    @property
    def _ours(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if kind not in self._factories)

    def _made(self, name: str, plan: Resolved) -> BaseExecutor:
        if plan.options is None:
            return self._factories[plan.kind](name=name, **plan.merged)
        return executor_class(plan.kind)(name, plan.options)

    # -- all of them --------------------------------------------------------

    @property
    def executors(self) -> dict[str, BaseExecutor]:
        """All pools by name (a copy)."""
        return dict(self._pools)

    def all_metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of all pools by name."""
        return {name: pool.metrics for name, pool in self.executors.items()}

    async def start_all(self) -> None:
        """Start all pools at the same time; raises the first error, with the pool's name as a note."""
        started = await _all(self.executors, lambda pool: pool.start())
        for _, error in started:
            raise error

    async def shutdown_all(self, wait: bool = True) -> None:
        """End all pools at the same time, even if some fail; with ``wait`` calls in hand are finished.

        Raises ExceptionGroup with the errors of those that failed. The pools stay
        known, and ``start`` or ``start_all`` opens them again.
        """
        failed = await _all(self.executors, lambda pool: pool.shutdown(wait=wait))
        if failed:
            names = ", ".join(repr(name) for name, _ in failed)
            raise ExceptionGroup(
                f"executors that failed to shut down: {names}", [error for _, error in failed]
            )

    async def aclose(self) -> None:
        """``shutdown_all(wait=True)``."""
        await self.shutdown_all()

    async def __aenter__(self) -> Self:
        try:
            await self.start_all()
        except BaseException:
            await self.shutdown_all(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown_all()

    def __len__(self) -> int:
        return len(self._pools)

    def __contains__(self, name: object) -> bool:
        return name in self._pools

    def __iter__(self) -> Iterator[str]:
        return iter(self.executors)

    def __repr__(self) -> str:
        pools = ", ".join(f"{name!r}: {pool.kind}" for name, pool in self.executors.items())
        return f"<ExecutorRegistry {{{pools}}}>"


async def _all(
    pools: Mapping[str, BaseExecutor], act: Callable[[BaseExecutor], Any]
) -> list[tuple[str, Exception]]:
    """Do it to all pools at the same time; the errors, with their pools' names."""

    async def one(pool: BaseExecutor) -> None:
        await act(pool)

    running = {name: spawn(one, pool) for name, pool in pools.items()}
    try:
        for task in running.values():
            await task.done.wait()
    except BaseException:
        for task in running.values():
            task.cancel()
        raise
    return [(name, error) for name, task in running.items() if (error := _error_of(name, task)) is not None]


def _error_of(name: str, task: Spawned[None]) -> Exception | None:
    try:
        task.result()
    except Exception as error:
        note = f"(in executor {name!r})"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error
    return None


def executor_class(kind: str) -> Callable[..., BaseExecutor]:
    """The class of one of our kinds, aliases included; imported only now."""
    module, name = _CLASSES[ALIASES.get(kind, kind)]
    found: Callable[..., BaseExecutor] = getattr(import_module(f"genro_nats.executor.{module}"), name)
    return found
