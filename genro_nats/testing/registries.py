"""Registries for tests: whatever kind the code asks for, its pools are inline, or held."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from genro_nats.config import KINDS
from genro_nats.executor.base import BaseExecutor
from genro_nats.executor.inline import InlineExecutor
from genro_nats.executor.registry import ExecutorRegistry
from genro_nats.testing.memory import MemoryExecutor

__all__ = ["inline_registry", "memory_registry"]


def inline_registry() -> ExecutorRegistry:
    """Every pool runs its calls inline, whatever kind was asked for."""
    return _registry(InlineExecutor)


def memory_registry(seed: int | None = None) -> ExecutorRegistry:
    """Every pool is a ``MemoryExecutor``; kind "memory" is known too. ``seed``: as there."""
    return _registry(partial(MemoryExecutor, seed=seed))


def _registry(factory: Callable[..., BaseExecutor]) -> ExecutorRegistry:
    registry = ExecutorRegistry()
    for kind in (*KINDS, "memory"):
        registry.register_factory(kind, factory)
    return registry
