"""All that is compared: bare nats-py, other process pools, and every kind of pool here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final

from anyio import CapacityLimiter, to_process

from genro_nats.bench.functions import echo, echo_async
from genro_nats.bench.ground import echo_peer, login, pool_options, worker_peer
from genro_nats.bench.peer import has_uvloop
from genro_nats.bench.plan import CHILDREN
from genro_nats.executor.async_ import AsyncExecutor
from genro_nats.executor.inline import InlineExecutor
from genro_nats.executor.nats import NatsExecutor
from genro_nats.executor.pool import Pool
from genro_nats.executor.process import AsyncProcessExecutor, ProcessExecutor
from genro_nats.executor.thread import ThreadExecutor
from genro_nats.server import EmbeddedServer
from genro_nats.transport.floor import FloorClient

__all__ = ["FLOOR", "FLOOR_UVLOOP", "NATS", "PROCESS", "STDLIB", "Caller", "open_systems"]

FLOOR: Final = "nats-py echo"
FLOOR_UVLOOP: Final = "nats-py echo, uvloop"
STDLIB: Final = "ProcessPoolExecutor"
ANYIO: Final = "anyio.to_process"
PROCESS: Final = "process"
NATS: Final = "nats"

Caller = Callable[[Any], Awaitable[Any]]


async def open_systems(stack: AsyncExitStack, server: EmbeddedServer) -> dict[str, Caller]:
    """Every system, ready to be called with a value (bytes for the floors), until the stack is closed."""
    # First, since it may fork, and that is safest before there are threads.
    stdlib = await _open_stdlib(stack)
    systems = {FLOOR: await _open_floor(stack, server, uvloop=False)}
    if has_uvloop():
        systems[FLOOR_UVLOOP] = await _open_floor(stack, server, uvloop=True)
    limiter = CapacityLimiter(CHILDREN)
    systems[STDLIB] = stdlib
    systems[ANYIO] = lambda value: to_process.run_sync(echo, value, limiter=limiter)
    for kind in (InlineExecutor, ThreadExecutor, ProcessExecutor, AsyncExecutor, AsyncProcessExecutor):
        systems[kind.kind] = await _open_pool(stack, kind(f"bench-{kind.kind}", max_workers=CHILDREN))
    stack.enter_context(worker_peer(server, "bench.calls"))
    remote = NatsExecutor("bench-nats", **pool_options(server, "bench.calls"))
    systems[NATS] = await _open_pool(stack, remote)
    return systems


async def _open_stdlib(stack: AsyncExitStack) -> Caller:
    executor = stack.enter_context(ProcessPoolExecutor(CHILDREN))
    loop = asyncio.get_running_loop()

    def call(value: Any) -> Awaitable[Any]:
        return loop.run_in_executor(executor, echo, value)

    await asyncio.gather(*(call(number) for number in range(10 * CHILDREN)))
    return call


async def _open_floor(stack: AsyncExitStack, server: EmbeddedServer, *, uvloop: bool) -> Caller:
    subject = f"bench.floor.{uvloop}"
    stack.enter_context(echo_peer(server, subject, uvloop=uvloop))
    client = await FloorClient.connect(**login(server), subject=subject)
    stack.push_async_callback(client.aclose)
    return client.request


async def _open_pool(stack: AsyncExitStack, pool: Pool) -> Caller:
    await stack.enter_async_context(pool)
    # Async kinds are for async functions; a plain one would measure their threads.
    return pool(echo_async) if pool.kind.startswith("async") else pool(echo)
