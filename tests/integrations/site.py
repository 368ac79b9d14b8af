"""A genro-asgi site with pools, as an application would write it.

``uvicorn tests.integrations.site:server``, or ``python -m tests.integrations.site``.
``SITE_POOLS`` has the constructor's ``executors`` as JSON, ``SITE_DRAIN`` the drain's seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from genro_asgi import AsgiServer, RoutedApplication
from genro_routes import route

from genro_nats import BaseExecutor
from genro_nats.errors import ExecutorOverloadError
from genro_nats.integrations.genro_asgi import ExecutorMixin
from tests.integrations import jobs


class Server(ExecutorMixin, AsgiServer):
    """The sanctioned form."""


class Site(RoutedApplication):
    """Handlers that call the pool named in the request."""

    code = "site"
    mount = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.background: set[asyncio.Task[None]] = set()

    @property
    def owner(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def pool(self, name: str) -> BaseExecutor:
        return self.owner.executor(name=name)

    @route()
    async def double(self, pool: str, x: int) -> dict[str, Any]:
        value, pid = await self.pool(pool).submit(jobs.double, x)
        return {"value": value, "pid": pid}

    @route()
    def double_blocking(self, pool: str, x: int) -> dict[str, Any]:
        value, pid = self.pool(pool)(jobs.double).call(x)
        return {"value": value, "pid": pid}

    @route()
    async def gate(self, pool: str, path: str) -> dict[str, Any]:
        return {"value": await self.pool(pool).submit(jobs.gate, path)}

    @route()
    async def late(self, pool: str, path: str) -> dict[str, Any]:
        return {"value": await self.pool(pool)(timeout=0.2)(jobs.gate)(path)}

    @route()
    async def caught(self, pool: str) -> dict[str, Any]:
        try:
            return {"value": await self.pool(pool).submit(jobs.double, 1)}
        except ExecutorOverloadError as error:
            return {"caught": str(error), "pool": error.executor, "limit": error.max_pending}

    @route()
    async def mapped(self, pool: str, n: int) -> dict[str, Any]:
        return {"items": [value async for value, _ in self.pool(pool).map(jobs.double, range(n))]}

    @route()
    async def streamed(self, pool: str, n: int) -> dict[str, Any]:
        return {"items": [item async for item in self.pool(pool).stream(jobs.count, n)]}

    @route()
    async def behind(self, pool: str, opened: str, path: str) -> dict[str, Any]:
        """Answer at once, and leave a call behind."""
        call = self.pool(pool).submit(jobs.write_after, opened, path)
        task = asyncio.ensure_future(call)
        self.background.add(task)
        return {}

    @route()
    async def figures(self) -> dict[str, Any]:
        figures = self.owner.get_executor_metrics()
        return {name: {key: pool[key] for key in ("mode", "pending")} for name, pool in figures.items()}


def build() -> Server:
    return Server(
        applications=[Site],
        executors=json.loads(os.environ.get("SITE_POOLS", "{}")),
        executor_drain_timeout=float(os.environ.get("SITE_DRAIN", "10")),
        storage=[],
        tasks=os.environ.get("SITE_TASKS", "1") == "1",
    )


def __getattr__(name: str) -> Any:
    # uvicorn asks for it; tests that import this module build their own.
    if name == "server":
        return build()
    raise AttributeError(name)


if __name__ == "__main__":
    build().serve()
