"""Ending tasks of an event loop that may never run again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

__all__ = ["drop_task"]


def drop_task(task: asyncio.Task[Any]) -> None:
    """End a task whose loop may never run again, without a word."""
    if task.get_loop().is_running():
        task.cancel()
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    with contextlib.suppress(Exception):  # what it does to end may need a loop
        coroutine.close()
