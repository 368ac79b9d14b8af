"""Which level is asked for how many messages: a pure decision.

A level is asked without waiting until the server says that it is empty; only then
a waiting ask goes out, which keeps it known as empty, and the next level has its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["WAITING", "Ask", "Known", "decide"]

WAITING: Final = 16  # messages asked for at an empty level; what comes when no slot is left has to go back


class Known(NamedTuple):
    """What is known of a level. ``waiting``, ``probing``: messages asked for, until there are some or not.

    ``empty``: the server said so, and every message since then came here or to another who asked.
    ``blocked``: it can't be asked now, and who knows what it holds.
    """

    empty: bool = False
    waiting: int = 0
    probing: int = 0
    blocked: bool = False


class Ask(NamedTuple):
    """Ask a level for ``batch`` messages; ``wait``: until there are some."""

    level: int
    batch: int
    wait: bool


def decide(free: int, levels: Sequence[Known], waiting: int = WAITING) -> list[Ask]:
    """What to ask for now, with so many free slots; the highest level comes first.

    ``waiting``: messages asked for at an empty level, at most.
    """
    asks: list[Ask] = []
    room = free
    for number, level in enumerate(levels):
        room -= level.probing
        if room <= 0 or level.blocked:
            break
        if not level.empty:
            count = _to_probe(free, room, level)
            if count > 0:
                asks.append(Ask(number, count, False))
            break
        target = min(free, waiting)
        if level.waiting * 2 <= target:
            asks.append(Ask(number, target - level.waiting, True))
    return asks


def _to_probe(free: int, room: int, level: Known) -> int:
    if not level.probing:
        # At least one, or it would never be heard that others took what was expected.
        return max(1, room - level.waiting)
    # While many are asked for already, asking for one more each time would only cost messages.
    return room - level.waiting if level.probing * 2 <= free else 0
