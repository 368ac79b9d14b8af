"""Outcomes of settled tasks: read within a time, and deleted once somebody really has them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from genro_nats.codec.codecs import Codecs
from genro_nats.codec.frame import Flag, Frame, FrameKind, check
from genro_nats.errors import CallTimeoutError, ExecutorError, TaskCancelledError, TaskFailedError
from genro_nats.executor.nats_tasks.outcomes import Outcomes
from genro_nats.tasks.record import Stored
from genro_nats.tasks.retry import MAX_DELAY
from genro_nats.tasks.shelf import Shelf
from genro_nats.tasks.status import TaskState
from genro_nats.tasks.store import StateStore

__all__ = ["ASKED", "Reading"]

log: Final = logging.getLogger("genro_nats.executor")

ASKED: Final = MAX_DELAY  # seconds that a request waits for a worker: as long as a task may wait
_CLOSING: Final = 3.0  # seconds that requests may take to be stored when the pool is shut down


class Reading:
    """Gives outcomes, and asks workers to delete those that are not to be kept.

    Only what was read is deleted: reading that failed or was cancelled can be repeated, by anybody. So
    the request is stored beside, and nothing is waited for between having an outcome and giving it.
    """

    def __init__(self, store: StateStore, outcomes: Outcomes, shelf: Shelf, codecs: Codecs) -> None:
        self._store = store
        self._outcomes = outcomes
        self._shelf = shelf
        self._codecs = codecs
        self._asking: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait for requests that are on their way. What is not asked for by then stays for its time to live."""
        if self._asking:
            _, late = await asyncio.wait(self._asking, timeout=_CLOSING)
            for task in late:
                task.cancel()

    async def give(self, id: str, stored: Stored, timeout: float | None, begun: float) -> Any:
        """The value of a settled task, or what it ended in, raised. ``timeout``: from ``begun`` on.

        Raises CallTimeoutError if reading takes longer, and as ``Shelf.frame`` and ``Codecs.loads``.
        """
        value, error = await self._ended_in(id, stored, timeout, begun)
        if not stored.keep:
            self._forget(id, stored.seq)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _ended_in(
        self, id: str, stored: Stored, timeout: float | None, begun: float
    ) -> tuple[Any, BaseException | None]:
        """Value or error, apart from the errors of reading it."""
        if stored.state is TaskState.CANCELLED:
            return None, TaskCancelledError(f"Task {id} was cancelled.", task_id=id)
        if not len(stored.outcome):
            return None, _failure(id, stored)
        frame = await self._frame(id, stored, timeout, begun)
        if frame.kind == FrameKind.REPLY:
            return self._codecs.loads(frame.flags, frame.body, frame.buffers), None
        return None, self._codecs.load_error(frame.flags, frame.body)

    async def _frame(self, id: str, stored: Stored, timeout: float | None, begun: float) -> Frame:
        data = stored.outcome
        # Most are here already; a timer costs more than to look at them.
        if timeout is None or not check(data).flags & (Flag.REFERRED | Flag.COMPRESSED):
            return await self._shelf.frame(data)
        try:
            async with asyncio.timeout_at(begun + timeout) as scope:
                return await self._shelf.frame(data)
        except TimeoutError:
            if not scope.expired():
                raise
            raise CallTimeoutError(
                f"Task {id} is settled, but its outcome was not read within {timeout:g} s; it can be read again.",
                timeout=timeout,
                task_id=id,
            ) from None

    def _forget(self, id: str, seq: int) -> None:
        self._outcomes.forget(id, seq)
        task = asyncio.ensure_future(self._ask(id, seq))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, id: str, seq: int) -> None:
        try:
            await self._store.note("ask", "forget", id, ttl=ASKED)
        except ExecutorError as error:
            self._outcomes.keep(id, seq)
            log.warning("task %s was read, and nobody could be asked to delete its outcome: %s", id, error)


def _failure(id: str, stored: Stored) -> TaskFailedError:
    record = stored.record
    return TaskFailedError(
        f"Task {id} ({record.function}) failed: {record.reason}. {record.error}".strip(),
        task_id=id,
        reason=record.reason,
        error=record.error,
        attempts=record.attempts,
    )
