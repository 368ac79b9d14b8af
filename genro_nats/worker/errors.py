"""The last things that went wrong in a worker, as everybody may see them."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["LastErrors", "error_type"]

_KEPT: Final = 5
_LONGEST: Final = 200  # characters
_TYPED: Final = re.compile(r"([\w.]+:[\w.<>]+): ")
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
        "task.failed": ("function", "type"),
        "tasks.refused": (),
        "template.lost": (),
    }
)


def error_type(text: str | None) -> str:
    """The type of the exception that a task's ``error`` begins with, without its text; "" where it is none."""
    found = _TYPED.match(text or "")
    return found[1] if found else ""


class LastErrors:
    """An observer of events that remembers the last few bad ones."""

    def __init__(self) -> None:
        self._found: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def __call__(self, name: str, facts: Mapping[str, Any]) -> None:
        """Something happened."""
        shown = _SHOWN.get(name)
        if shown is None:
            return
        text = " ".join(f"{key}={facts[key]}" for key in shown if facts.get(key) not in (None, ""))
        self._found.append({"at": round(time.time(), 3), "event": name, "text": text[:_LONGEST]})

    def facts(self) -> list[dict[str, Any]]:
        """They, the newest last."""
        return list(self._found)
