"""Servers and fleets as the tests of faults have them."""

from __future__ import annotations

from tests.faults.conftest import (
    anyio_backend,
    notes,
    shared_fleet,
    shared_server,
    shared_tasks,
)

__all__ = ["anyio_backend", "notes", "shared_fleet", "shared_server", "shared_tasks"]
