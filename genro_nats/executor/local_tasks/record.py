"""One task as this process keeps it, and the attempt that runs it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from genro_nats.executor.bridge import Signal
from genro_nats.message import TaskRun
from genro_nats.tasks.request import TaskRequest
from genro_nats.tasks.status import TaskStatus

if TYPE_CHECKING:
    import asyncio

    from genro_nats.executor.local_tasks.watch import LocalWatch

__all__ = ["Attempt", "Record"]


class Record:
    """A task. All of it is changed under the store's lock.

    ``context``: the context variables it runs with. ``due``: seconds since the epoch.
    ``failures``, ``deaths`` and ``moves``: attempts that ended so (see ``Cause``). ``over`` is set once it is settled;
    then ``error`` is what its ``result`` raises, or ``value`` what it returns.
    ``cancelling``: somebody asked for its end while it ran. ``here``: it runs inside ``enqueue``, and so
    do its retries. ``stop`` cancels what runs it, from any thread. ``kept_until``: of a settled one,
    seconds since the epoch.
    """

    __slots__ = (
        "attempt",
        "cancelling",
        "checkpoint",
        "context",
        "deaths",
        "due",
        "error",
        "failures",
        "here",
        "kept_until",
        "moves",
        "over",
        "request",
        "status",
        "stop",
        "timer",
        "value",
        "watchers",
    )

    def __init__(self, request: TaskRequest, status: TaskStatus, context: Context, due: float) -> None:
        self.request = request
        self.status = status
        self.context = context
        self.due = due
        self.failures = 0
        self.deaths = 0
        self.moves = 0
        self.checkpoint: bytes | None = None
        self.cancelling = False
        self.here = False
        self.stop: Callable[[], object] = lambda: None
        self.attempt: Attempt | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.watchers: list[LocalWatch] = []
        self.over = Signal()
        self.kept_until = 0.0
        self.value: Any = None
        self.error: BaseException | None = None


class Attempt:
    """One run of a task. ``claimed``: it was admitted; from then on the pool has it."""

    __slots__ = ("claimed", "run")

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.claimed = False
