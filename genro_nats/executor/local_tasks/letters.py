"""The dead letters of a pool: tasks that failed for good, with their calls."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Final

from genro_nats.errors import TaskNotFoundError
from genro_nats.tasks.backend import DeadLetter
from genro_nats.tasks.request import TaskRequest

__all__ = ["MAX_LETTERS", "Letters"]

MAX_LETTERS: Final = 10_000  # from then on the oldest is dropped, and a warning says so
_log: Final = logging.getLogger("genro_nats")


class Letters:
    """By the tasks' ids, the oldest first. Called under the store's lock."""

    def __init__(self) -> None:
        self._letters: dict[str, tuple[DeadLetter, TaskRequest]] = {}

    def add(self, letter: DeadLetter, request: TaskRequest) -> None:
        """Keep one."""
        self._letters.pop(letter.id, None)
        self._letters[letter.id] = letter, request
        if len(self._letters) > MAX_LETTERS:
            oldest = next(iter(self._letters))
            del self._letters[oldest]
            _log.warning("more than %d dead letters: %s was dropped", MAX_LETTERS, oldest)

    def get(self, id: str) -> TaskRequest:
        """The call of one. Raises TaskNotFoundError."""
        if id not in self._letters:
            raise TaskNotFoundError(f"There is no dead letter {id!r}.", task_id=id)
        return self._letters[id][1]

    def oldest(self, limit: int) -> list[DeadLetter]:
        """The oldest ones."""
        return [letter for letter, _ in islice(self._letters.values(), limit)]

    def drop(self, id: str) -> bool:
        """Remove one; was it there?"""
        return self._letters.pop(id, None) is not None
