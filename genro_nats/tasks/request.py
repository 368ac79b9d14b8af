"""A task on its way into a store, and how its id is made."""

from __future__ import annotations

import hashlib
from typing import Final

from genro_nats.message import Call
from genro_nats.tasks.options import TaskOptions

__all__ = ["OWNER", "TaskRequest", "call_id"]

OWNER: Final = 16  # characters of a made-up id that name the pool instance that made it


class TaskRequest:
    """One call to be kept: ``call`` with the stable ``name`` of its function, and ``options``.

    ``id`` is the caller's own, or made up: 32 hex characters.
    """

    __slots__ = ("call", "id", "name", "options")

    def __init__(self, call: Call, name: str, options: TaskOptions, owner: str = "") -> None:
        self.call = call
        self.name = name
        self.options = options
        made_up = owner[:OWNER] + call.id.hex()[len(owner[:OWNER]) :]
        self.id = options.id or made_up


def call_id(task_id: str) -> bytes:
    """The 16 bytes by which frames name a task: those of a made-up id, else a digest of it."""
    if len(task_id) == 32:
        try:
            return bytes.fromhex(task_id)
        except ValueError:
            pass
    return hashlib.blake2b(task_id.encode(), digest_size=16).digest()
