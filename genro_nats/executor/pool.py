"""What all kinds of this package share: admission, books, nesting, life.

::

    invoke ─▶ called inside its own pool? ──▶ run here
           └▶ admission ─▶ books ─▶ _run (the kind) ─▶ books ─▶ the caller
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genro_nats.codec.functions import stable_name
from genro_nats.executor.admission import closed_error
from genro_nats.executor.pool_calls import PoolCalls
from genro_nats.message import Call, CallOptions, running_call
from genro_nats.tasks.backend import TaskBackend
from genro_nats.tasks.options import TaskOptions
from genro_nats.tasks.request import TaskRequest

__all__ = ["Pool"]


class Pool(PoolCalls):
    """A pool with its tasks: what all kinds of this package are. See ``PoolLife`` for what a kind implements."""

    @property
    def task_slots(self) -> int:
        """Tasks that run at the same time, where this process keeps them."""
        return self.options.workers

    @property
    def task_backend(self) -> TaskBackend:
        """Who keeps this pool's tasks: this process, in memory."""
        if self.address and not self._bypassed:
            return super().task_backend
        tasks = self._tasks
        if tasks is None or tasks.inherited:
            from genro_nats.executor.local_tasks.backend import LocalTasks

            with self._lock:
                if self._tasks is tasks:
                    self._tasks = LocalTasks(self)
                tasks = self._tasks
        assert tasks is not None
        return tasks

    @property
    def closing(self) -> bool:
        """Was it shut down, or is it being so?"""
        return self._closing is not None

    def check_home(self) -> None:
        """End what waits for an event loop that has gone (for kinds whose calls live in one)."""

    async def prepare(self) -> None:
        """``start``, but for a pool that was shut down: raises ExecutorClosedError."""
        if self._closing is not None:
            raise closed_error(self.name)
        await self._ready()

    async def run_task(self, call: Call, begin: Callable[[], object]) -> Any:
        """The value of a task's call. It waits for admission without limit, then ``begin()`` is called.

        What ``begin`` raises ends it.
        """
        context = running_call.get()
        if context is not None and self._is_inside(context):
            begin()
            return await self._run_nested(call)
        await self._slots.take(patient=True)
        try:
            begin()
        except BaseException:
            self._slots.release()
            raise
        self._ledger.begin()
        return await self._booked(call)

    def task_request(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        task_options: TaskOptions,
        name: str = "",
    ) -> TaskRequest:
        """A task for the backend: see ``BaseExecutor.task_request``."""
        call = self._called(function, args, kwargs, options, running_call.get())
        self._refuse_generator(call)
        if task_options.by_value and call.by is None:
            call.by = "value"
        by_value = (call.by or self.options.by) == "value"
        stable = self._stable_name(call.function, name, by_value)
        return TaskRequest(call, stable, task_options, self._task_owner())

    def _task_owner(self) -> str:
        """What the ids of its tasks begin with."""
        return self._owner

    def _stable_name(self, function: Callable[..., Any], name: str, by_value: bool) -> str:
        """``stable_name``, looked for once for a function that has one."""
        only_named = self.options.codec == "data"
        try:
            known = self._names.get(function)
        except TypeError:  # neither hashable nor weakly referable
            return stable_name(function, name, by_value=by_value, only_named=only_named)
        if known is None:
            known = stable_name(function, by_value=by_value, only_named=only_named)
            if not by_value:
                self._names[function] = known
        return name or known
