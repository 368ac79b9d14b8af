"""Kinds ``process`` (alias ``local``) and ``async-process``: calls run in child processes of this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genro_nats.codec.functions import unwrap
from genro_nats.codec.modules import is_main
from genro_nats.config import PoolOptions
from genro_nats.executor.engine import Engine
from genro_nats.executor.function import Function
from genro_nats.executor.homed import HomedExecutor
from genro_nats.message import in_child

__all__ = ["AsyncProcessExecutor", "LocalExecutor", "ProcessExecutor"]


class ProcessExecutor(HomedExecutor):
    """Runs sync and async functions in children, one at a time in each (``threads`` at a time).

    A call whose deadline passes or whose caller cancels is ended by killing its child.
    Inside a child of any pool calls run inline, since children start no children.
    """

    kind = "process"

    def __init__(self, *args: Any, **stated: Any) -> None:
        super().__init__(*args, **stated)
        self._modules: dict[str, None] = {}

    def _decorate(self, function: Callable[..., Any], **stated: Any) -> Function[..., Any]:
        module = getattr(unwrap(function), "__module__", None)
        if module and not is_main(module):
            self._modules[module] = None
        return super()._decorate(function, **stated)

    @property
    def task_slots(self) -> int:
        """Tasks that run at the same time: as many as the children have threads."""
        return self.options.workers * self.options.threads

    @property
    def has_children(self) -> bool:
        """Do calls run in other processes, which may die?"""
        return not self._is_inline()

    def _stays_here(self) -> bool:
        return self._home is None and in_child()

    def _make_engine(self) -> Engine:
        from genro_nats.executor.process_engine import ProcessEngine

        return ProcessEngine(self.options, name=self.name, kind=self.kind, hints=list(self._modules))


class AsyncProcessExecutor(ProcessExecutor):
    """Runs ``concurrency`` async functions at a time in each child; sync ones on threads there."""

    kind = "async-process"

    @property
    def task_slots(self) -> int:
        """Tasks that run at the same time: all that the children's loops run."""
        return self.map_concurrency

    @property
    def map_concurrency(self) -> int:
        """Calls that ``map`` keeps in flight unless told otherwise: all that run at a time."""
        return self.options.workers * self.options.concurrency


class LocalExecutor(ProcessExecutor):
    """``ProcessExecutor`` with genro-asgi's former constructor; over ``max_pending`` it fails fast."""

    def __init__(
        self,
        name: str = "default",
        max_workers: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        max_pending: int = 100,
        bypass: bool = False,
    ) -> None:
        options = PoolOptions(
            max_workers=max_workers,
            initializer=initializer,
            initargs=initargs,
            max_pending=max_pending,
            bypass=bypass,
            overload="fail",
        )
        super().__init__(name, options)
