"""Events: what happened, as a name and plain facts, one log line each.

Names are ``thing.what`` ("worker.ready", "child.lost"); facts are strings,
numbers and booleans. An observer can never break a call: what it raises is
logged and forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = ["Events", "Observer"]

Observer = Callable[[str, dict[str, Any]], object]

log: Final = logging.getLogger("genro_nats.events")

_WARNINGS: Final = frozenset(
    {
        "lost",
        "failed",
        "stuck",
        "rejected",
        "unsigned",
        "unchecked",
        "refused",
        "down",
        "kept",
        "overfull",
        "apart",
    }
)


class Events:
    """Logs each event and shows it to the observers."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Show it what happens from now on."""
        self._observers.append(observer)

    def __call__(self, name: str, **facts: Any) -> None:
        """Something happened."""
        level = logging.WARNING if name.rpartition(".")[2] in _WARNINGS else logging.INFO
        if log.isEnabledFor(level):
            shown = " ".join(f"{key}={value}" for key, value in facts.items())
            log.log(level, "%s %s", name, shown, extra={"event": name, "facts": facts})
        for observer in self._observers:
            try:
                observer(name, facts)
            except Exception:
                log.exception("an observer of %s raised", name)
