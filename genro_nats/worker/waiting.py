"""Calls by digest: what they need before they can begin, and the time that passes meanwhile."""

from __future__ import annotations

import asyncio
from math import inf

from genro_nats.codec.by_value import VERSION, FunctionField, check_version, function_field
from genro_nats.codec.frame import Buffer, Flag, Head, check, name_of, seconds_field, with_seconds
from genro_nats.executor.children.work import Work
from genro_nats.transport import shared
from genro_nats.worker.functions import FunctionShelf, Needed

__all__ = ["give_function", "needed_function"]


def needed_function(data: Buffer, head: Head) -> FunctionField | None:
    """The function that has to be there before this call begins; None: it has or names its own.

    ``head``: of its frame, checked.

    Raises:
        DecodeError: the call says that it needs one, and not which.
        PythonVersionError: it is of another minor version of Python.
    """
    if not head.flags & Flag.BY_DIGEST:
        return None
    field = function_field(data, head)
    if field.version != VERSION:
        check_version(field.version, name_of(data, head).decode(errors="replace"))
    return field


async def give_function(work: Work, shelf: FunctionShelf, reply: str, limit: int) -> None:
    """Get the function of a call that is here in full, however long that takes within its deadline.

    Raises:
        TimeoutError: at the deadline; and as ``needed_function`` and ``FunctionShelf.fetch``.
    """
    parts = work.parts
    data = parts.view() if isinstance(parts, shared.StoredFrame) else parts[0]
    field = needed_function(data, check(data))
    if field is None:
        return
    call = Needed(work.id, work.key.decode(errors="replace"), reply.rpartition(".")[0], reply)
    async with asyncio.timeout_at(None if work.deadline == inf else work.deadline):
        work.function = await shelf.fetch(field, call, limit)
    if work.deadline != inf:
        _less_time(work, work.deadline - asyncio.get_running_loop().time())


def _less_time(work: Work, seconds: float) -> None:
    parts = work.parts
    if isinstance(parts, shared.StoredFrame):
        parts.put(*seconds_field(seconds))
    else:
        work.parts = [with_seconds(bytes(parts[0]), seconds)]
