"""Running a coroutine in an event loop of its own, in a child or thread that has none.

asyncio looks closely at what ends a loop's main task: an exception whose class does not stand that would
leave the loop running for ever. So what is raised comes out of the loop as a value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

__all__ = ["run_apart"]

_T = TypeVar("_T")
_Outcome = tuple[_T, None] | tuple[None, BaseException]


def run_apart(run: Callable[[Any], Any], awaited: Awaitable[_T]) -> _T:
    """What it gives, or raises. ``run``: ``asyncio.run`` or the like."""
    value, error = run(_outcome(awaited))
    if error is not None:
        try:
            raise error
        finally:
            del error  # or it would hold this frame, and its call's values, until they are collected
    return value  # type: ignore[no-any-return]


async def _outcome(awaited: Awaitable[_T]) -> _Outcome[_T]:
    try:
        return await awaited, None
    except BaseException as error:
        return None, error
