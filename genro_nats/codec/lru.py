"""A memory of things by key, bounded in bytes: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["ByteLRU"]

K = TypeVar("K")
V = TypeVar("V")


class ByteLRU(Generic[K, V]):
    """Keeps ``limit`` bytes, but the newest one whatever its size. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._latest: K | None = None
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[K]:
        """The keys, the one used longest ago first."""
        return iter(self._kept)

    def get(self, key: K) -> V | None:
        """What is kept there, which counts as a use of it."""
        found = self._kept.get(key)
        if found is None:
            return None
        if key != self._latest:
            self._kept.move_to_end(key)
            self._latest = key
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep it; what no longer fits beside it is dropped."""
        self.pop(key)
        self._kept[key] = value, size
        self._latest = key
        self.size += size
        while self.crowded:
            self.pop(next(iter(self._kept)))

    def pop(self, key: K) -> V | None:
        """Keep it no more."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self.size -= found[1]
        return found[0]

    @property
    def crowded(self) -> bool:
        """Is there more in it than fits?"""
        return self.size > self._limit and len(self._kept) > 1
