"""Bare durable tasks with nats-py: the floor that the benchmark compares the pool's tasks with.

A task is published into a work queue and acknowledged; another process pulls it, stores its
bytes as the result in a stream with one message per subject, and acknowledges the task; the
caller hears the result by a core subscription. Nothing else: no children, no fencing, no states.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, PubAck, RetentionPolicy, StreamConfig

from genro_nats.transport.floor import connect_bare

__all__ = ["TaskFloor", "serve_task_floor"]

_TASKS: Final = "bench-floor-tasks"
_RESULTS: Final = "bench-floor-results"
_QUEUE: Final = "bench-floor-queue"  # of tasks that nobody takes
_BATCH: Final = 64  # messages per pull
_EXPIRES: Final = 30  # seconds
_TIMEOUT: Final = 60.0  # seconds


class TaskFloor:
    """A nats-py client that enqueues tasks and waits for their results."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js = client.jetstream(timeout=_TIMEOUT)
        self._who = os.urandom(4).hex()
        self._ids = count()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    @classmethod
    async def connect(cls, url: str, user: str, password: str) -> TaskFloor:
        """A connected client, with the streams created. Raises what nats-py raises."""
        client = await connect_bare(url, user, password)
        floor = cls(client)
        await floor._js.add_stream(
            StreamConfig(_TASKS, subjects=["bench-floor.task.>"], retention=RetentionPolicy.WORK_QUEUE)
        )
        await floor._js.add_consumer(
            _TASKS,
            ConsumerConfig(durable_name="all", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=10_000),
        )
        await floor._js.add_stream(
            StreamConfig(
                _RESULTS, subjects=["bench-floor.result.>"], max_msgs_per_subject=1, allow_direct=True
            )
        )
        await floor._js.add_stream(StreamConfig(_QUEUE, subjects=["bench-floor.queue.>"]))
        await client.subscribe(f"bench-floor.result.{floor._who}.*", cb=floor._told)
        await client.flush()
        return floor

    async def _told(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.data)

    async def call(self, data: bytes) -> bytes:
        """Store a task, and wait for its result."""
        own = f"{self._who}.{next(self._ids)}"
        subject = f"bench-floor.result.{own}"
        result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[subject] = result
        await self._js.publish(f"bench-floor.task.{own}", data)
        return await result

    async def store_many(self, data: bytes, number: int, in_flight: int = 256) -> None:
        """Publish tasks that nobody takes, pipelined; all are stored when this returns."""
        window: deque[asyncio.Future[PubAck]] = deque()
        for _ in range(number):
            if len(window) >= in_flight:
                await window.popleft()
            subject = f"bench-floor.queue.{self._who}.{next(self._ids)}"
            window.append(await self._js.publish_async(subject, data))
        while window:
            await window.popleft()

    async def forget_many(self) -> None:
        """Drop them."""
        await self._js.purge_stream(_QUEUE)

    async def last_of(self, stream: str) -> bytes:
        """The last message of any stream."""
        return (await self._js.get_last_msg(stream, ">")).data or b""

    async def purge(self, stream: str) -> None:
        """Drop all messages of any stream."""
        await self._js.purge_stream(stream)

    async def aclose(self) -> None:
        """Leave the server."""
        await self._client.close()


async def serve_task_floor(
    url: str, user: str, password: str, ready: Callable[[], Any], stopped: asyncio.Event
) -> None:
    """Take tasks by overlapping pulls, answer each with its own bytes; ``ready`` is called once it does."""
    client = await connect_bare(url, user, password)
    puller = _Puller(client)
    try:
        await client.subscribe(f"{puller.inbox}.*", cb=puller.heard)
        await puller.ask()
        await client.flush()
        ready()
        await stopped.wait()
    finally:
        await client.close()


class _Puller:
    """Keeps more than one batch asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js = client.jetstream(timeout=_TIMEOUT)
        self._open: dict[str, int] = {}  # messages that each pull may still bring
        self._numbers = count()
        self._serving: set[asyncio.Task[None]] = set()
        self.inbox = f"_INBOX.{os.urandom(8).hex()}"

    async def ask(self) -> None:
        while sum(self._open.values()) <= _BATCH:
            reply = f"{self.inbox}.{next(self._numbers)}"
            self._open[reply] = _BATCH
            body = json.dumps({"batch": _BATCH, "expires": _EXPIRES * 1_000_000_000}).encode()
            await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{_TASKS}.all", body, reply)

    async def heard(self, message: Msg) -> None:
        if message.reply:
            # The server serves the oldest pull first; the subject is the task's, which says nothing of it.
            for oldest in self._open:
                self._open[oldest] -= 1
                if not self._open[oldest]:
                    del self._open[oldest]
                break
            serving = asyncio.create_task(self._serve(message))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)
        else:
            self._open.pop(message.subject, None)
        await self.ask()

    async def _serve(self, message: Msg) -> None:
        own = message.subject.removeprefix("bench-floor.task.")
        await self._js.publish(f"bench-floor.result.{own}", message.data)
        await message.ack()
