"""What users need to test code that calls pools: see ``plugin`` (pytest), ``memory`` and ``conformance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genro_nats.testing.memory import HeldCall, MemoryExecutor
    from genro_nats.testing.registries import inline_registry, memory_registry
    from genro_nats.testing.server import NatsServer
    from genro_nats.testing.worker import WorkerFactory, WorkerProcess

__all__ = [
    "HeldCall",
    "MemoryExecutor",
    "NatsServer",
    "WorkerFactory",
    "WorkerProcess",
    "inline_registry",
    "memory_registry",
]

_MODULES = {
    "HeldCall": "memory",
    "MemoryExecutor": "memory",
    "NatsServer": "server",
    "WorkerFactory": "worker",
    "WorkerProcess": "worker",
    "inline_registry": "registries",
    "memory_registry": "registries",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"genro_nats.testing.{_MODULES[name]}"), name)
