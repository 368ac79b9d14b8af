"""Shows a worker to everybody: a heartbeat every few seconds and on each change, and answers to who asks.

What is shown is in docs/wire.md. It holds no arguments, values or texts of exceptions, and is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from genro_nats.errors import ExecutorError
from genro_nats.executor.children.usage import AT_ONCE, Usage, usage
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.subjects import is_inbox, presence_ask, presence_of

__all__ = ["HEARTBEAT", "Presence"]

HEARTBEAT: Final = 5.0  # seconds
_SOON: Final = 0.1  # seconds for which changes are collected
_MEASURE: Final = 1.0  # seconds for which what was measured is good
_LARGEST: Final = 60_000  # bytes
_MOST_CHILDREN: Final = 64  # per pool, in what is shown

_CHANGES: Final = frozenset(
    {"child.lost", "child.failed", "children.renewed", "children.kept", "tasks.ready", "server.up"}
)


class Presence:
    """The heartbeat of one worker. ``facts``: what is shown, but for what only this file knows."""

    def __init__(
        self, connection: Connection, prefix: str, worker: str, facts: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._worker = worker
        self._facts = facts
        self._began = time.time()
        self._measured = 0.0
        self._before: dict[int, Usage] = {}
        self._shares: dict[int, float] = {}
        self._told = 0.0
        self._soon: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.state = "starting"

    async def start(self) -> None:
        """Answer who asks, and beat."""
        self._loop = asyncio.get_running_loop()
        await self._connection.subscribe(presence_ask(self._prefix), self._asked)
        self.tell()

    def become(self, state: str) -> None:
        """``starting``, ``serving``, ``draining`` or ``gone``; told at once."""
        self.state = state
        self.tell()

    def changed(self, name: str, facts: Mapping[str, Any]) -> None:
        """An observer of events: what others should know at once is told soon."""
        if name in _CHANGES and self._soon is None and self.state != "starting":
            self._soon = self._loop.call_later(_SOON, self.tell)

    def tick(self) -> None:
        """Once a second."""
        if self._loop.time() - self._told >= HEARTBEAT:
            self.tell()

    def close(self) -> None:
        """Say no more. Can be repeated."""
        if self._soon is not None:
            self._soon.cancel()

    def tell(self) -> None:
        """One heartbeat, now."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._told = self._loop.time()
        self._send(presence_of(self._prefix, self._worker))

    def _asked(self, message: Message) -> None:
        if is_inbox(self._prefix, message.reply):
            self._send(message.reply)

    def _send(self, subject: str) -> None:
        if AT_ONCE:
            self._measure(usage(self._pids()))
            self._publish(subject)
            return
        task = self._loop.create_task(self._measure_and_send(subject))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _measure_and_send(self, subject: str) -> None:
        self._measure(await asyncio.to_thread(usage, self._pids()))
        self._publish(subject)

    def _publish(self, subject: str) -> None:
        with contextlib.suppress(ExecutorError):  # without a server there is nobody to see it
            self._connection.publish_now(subject, self.shown())

    # -- what is shown ------------------------------------------------------

    def _pids(self) -> list[int]:
        children = [child["pid"] for pool in self._facts()["pools"] for child in pool["children"]]
        return [os.getpid(), *children]

    def _measure(self, found: dict[int, Usage]) -> None:
        now = self._loop.time()
        seconds = now - self._measured
        if seconds < _MEASURE and found.keys() <= self._before.keys():
            return
        for pid, used in found.items():
            since = self._before.get(pid)
            self._shares[pid] = 0.0 if since is None else round(max(0.0, used.cpu - since.cpu) / seconds, 3)
        self._shares = {pid: self._shares[pid] for pid in found}
        self._before, self._measured = found, now

    def _used(self, pid: int) -> dict[str, Any]:
        used = self._before.get(pid)
        return {"cpu": self._shares.get(pid, 0.0), "memory": used.memory if used else 0}

    def shown(self) -> bytes:
        """The JSON object, as docs/wire.md has it."""
        facts = dict(self._facts())
        pools = [
            {
                **pool,
                "children": [
                    {**child, **self._used(child["pid"])} for child in pool["children"][:_MOST_CHILDREN]
                ],
            }
            for pool in facts.pop("pools")
        ]
        document = {
            "schema": 1,
            "worker": self._worker,
            "state": self.state,
            "began": round(self._began, 3),
            "uptime": round(time.time() - self._began, 3),
            "heartbeat": HEARTBEAT,
            "python": platform.python_version(),
            **self._used(os.getpid()),
            **facts,
            "pools": pools,
        }
        return _bounded(document)


def _bounded(document: dict[str, Any]) -> bytes:
    """As JSON; what is too large loses its children, and if that is not enough its pools."""
    data = b""
    bare = [{**pool, "children": []} for pool in document["pools"]]
    for smaller in ({}, {"pools": bare, "cut": True}, {"pools": [], "cut": True}):
        data = json.dumps({**document, **smaller}, separators=(",", ":")).encode()
        if len(data) <= _LARGEST:
            break
    return data
