"""Backends, and pools of every local kind that are ended after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from genro_nats import BaseExecutor, ExecutorRegistry

Make = Callable[..., BaseExecutor]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[BaseExecutor] = []

    def make(kind: str, **options: Any) -> BaseExecutor:
        made.append(ExecutorRegistry().executor(kind, name="pool", **{"max_workers": 1, **options}))
        return made[-1]

    yield make
    for pool in made:
        await pool.shutdown(wait=False)
