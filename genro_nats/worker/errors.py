"""The last things that went wrong in a worker, as everybody may see them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["LastErrors"]

_KEPT: Final = 5
_LONGEST: Final = 200  # characters
# Of each event, the facts that hold nothing of a user's data: texts of exceptions may quote arguments
# and passwords, so they stay in the worker's log.
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "call.failed": ("function", "error"),
        "call.stuck": ("function",),
        "child.failed": ("failures",),
        "child.lost": ("pid", "status", "calls"),
        "child.overfull": ("pid", "memory", "limit"),
        "children.kept": ("pool", "type"),
        "server.down": (),
        "task.failed": ("function",),
        "tasks.refused": (),
        "template.lost": (),
    }
)


class LastErrors:
    """An observer of events that remembers the last few bad ones."""

    def __init__(self) -> None:
        self._found: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def __call__(self, name: str, facts: Mapping[str, Any]) -> None:
        """Something happened."""
        shown = _SHOWN.get(name)
        if shown is None:
            return
        text = " ".join(f"{key}={facts[key]}" for key in shown if key in facts)
        self._found.append({"at": round(time.time(), 3), "event": name, "text": text[:_LONGEST]})

    def facts(self) -> list[dict[str, Any]]:
        """They, the newest last."""
        return list(self._found)
