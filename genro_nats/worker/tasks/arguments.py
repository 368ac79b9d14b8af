"""Calls of tasks whose arguments were stored apart: read into shared memory, then run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from genro_nats.codec.blob import Blob, blob_in, start
from genro_nats.codec.frame import Buffer, Frame
from genro_nats.tasks.message import TaskMessage, attempt_frame
from genro_nats.tasks.shelf import Shelf
from genro_nats.transport.pipe import Parts
from genro_nats.worker.intake import new_room, room_for

__all__ = ["Arguments"]

_AT_ONCE: Final = 4  # calls read at the same time
_MAX_BYTES: Final = 1 << 30  # that arguments of running tasks take together


class Arguments:
    """Reads calls, as many as there is memory for at the same time."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._taken = 0
        self._freed = asyncio.Event()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def reserved(self, task: TaskMessage) -> AsyncIterator[Blob]:
        """Memory for a call's arguments, while it is worked on; waits until there is some.

        Raises:
            DecodeError: the message holds no proper reference.
            PayloadTooLargeError: to more than ``max_payload_size``.
        """
        _, blob = blob_in(task.data)
        self._shelf.check(blob.size, f"A call of {task.function}")
        while not room_for(blob.size, self._taken, _MAX_BYTES):
            self._freed.clear()
            await self._freed.wait()
        self._taken += blob.size
        try:
            yield blob
        finally:
            self._taken -= blob.size
            self._freed.set()

    async def read(self, task: TaskMessage, attempt: int, checkpoint: Buffer | None) -> Parts:
        """The call's frame, ready for a child; ``attempt`` and ``checkpoint``: as of ``attempt_frame``.

        Raises as ``Shelf.frame``.
        """
        head, blob = blob_in(task.data)
        more: Sequence[Buffer] = ()
        if attempt > 1 or checkpoint is not None or task.id_differs:
            attempt_frame(head, task, attempt, checkpoint)
            more, head.buffers = head.buffers, ()
        async with self._turns:
            return await self._read(head, blob, more)

    async def _read(self, head: Frame, blob: Blob, more: Sequence[Buffer]) -> Parts:
        sink = new_room()
        sink.write(memoryview(start(head, blob, more)))
        await self._shelf.blobs.get(blob, sink)
        for buffer in more:
            sink.write(memoryview(buffer))
        return sink.parts()
