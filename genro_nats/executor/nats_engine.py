"""The engine of NATS pools: calls go to a subject, replies come to an inbox of our own.

A call is published once, and again only when it provably was not started:
nobody subscribed, or a worker refused it. From then on the caller waits for
the reply and watches for silence: a worker beats once a second for each call
it holds, and five silent seconds mean it is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable
from math import inf
from typing import Any, Final

from genro_nats.codec.frame import Flag, Frame, FrameKind, decode_all, encode, with_seconds
from genro_nats.codec.ids import batches, split_ids
from genro_nats.config import EMBEDDED, PoolOptions
from genro_nats.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectionLostError,
    DecodeError,
    ExecutorClosedError,
    ExecutorError,
    ExecutorOverloadError,
    NoWorkersError,
    WorkerLostError,
)
from genro_nats.executor.incoming import ItemBuffer, tell_progress
from genro_nats.executor.nats_tasks.backend import NatsTasks
from genro_nats.executor.wire import CallEncoder, load_reply
from genro_nats.message import Call
from genro_nats.transport.address import Address
from genro_nats.transport.backoff import backoff
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.subjects import caller_inbox, pool_subjects

__all__ = ["NatsEngine"]

log: Final = logging.getLogger("genro_nats.executor")

SILENCE: Final = 5.0  # seconds without a beat after which a worker counts as lost
_WATCH: Final = 0.5  # seconds between two looks for silence
_GRACE: Final = 5.0  # seconds after a reconnect in which workers may still be on their way back
_PAUSE: Final = 0.01  # seconds before a call is tried again on a connection that is breaking
_RETRY: Final = (0.02, 0.5)  # seconds, first and last, before a refused call is sent again; jittered
_ACK_DELAY: Final = 0.1  # seconds for which acknowledgements are collected
_ACK_BYTES: Final = 64 * 1024  # a larger reply is acknowledged at once: it is held in memory until then


class _Pending:
    """One call that has no reply yet."""

    __slots__ = ("call", "data", "heard", "items", "outcome", "retries", "timer", "worker")

    def __init__(self, call: Call, data: bytes, now: float, items: ItemBuffer | None) -> None:
        self.call = call
        self.data = data
        self.heard = now
        self.items = items
        self.outcome: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self.retries = 0
        self.timer: asyncio.TimerHandle | None = None
        self.worker = ""  # its inbox, once it has shown itself

    def fail(self, error: Exception) -> None:
        """End the call with an error, unless it has ended."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # a caller that left does not look at it


class NatsEngine:
    """Kind ``nats``: the caller's side."""

    def __init__(self, options: PoolOptions, *, name: str, owner: str) -> None:
        assert options.subject is not None
        self._options = options
        self._name = name
        self._subject = options.subject
        self._subjects = pool_subjects(options.prefix, options.subject)
        self._inbox = caller_inbox(options.prefix, os.urandom(12).hex())
        self._fail_fast = options.overload == "fail"
        self._encoder = CallEncoder()
        self._pending: dict[bytes, _Pending] = {}
        self._acks: dict[str, list[bytes]] = {}
        self._refusal: ConfigurationError | None = None
        self._returned_at = -inf
        self._down_since: float | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection = Connection(
            Address(options), f"genro-nats caller {name}", connect_timeout=options.connect_timeout
        )
        self.tasks = NatsTasks(self._connection, options, name, owner, self._encoder)

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Connect. Raises ConnectionLostError or ConfigurationError."""
        self._loop = asyncio.get_running_loop()
        await self._connection.start()
        self._connection.on_up.append(self._came_back)
        self._connection.on_down.append(self._went_down)
        self._connection.on_error.append(self._denied)
        await self._connection.subscribe(self._inbox + "*", self._received)
        await self._connection.flush()
        if self._refusal is not None:
            await self._connection.aclose()
            raise self._refusal
        self._outbox = Outbox(self._connection)

    async def aclose(self, wait: bool = True) -> None:
        """Leave; with ``wait`` once every call has its reply."""
        while wait and self._pending:
            await asyncio.wait([p.outcome for p in self._pending.values()])
            await asyncio.sleep(0)
        error = ExecutorClosedError(f"The executor '{self._name}' was shut down.", executor=self._name)
        for pending in list(self._pending.values()):
            self._cancel_remote(pending)
            pending.fail(error)
        for task in [*self._tasks, *([self._watcher] if self._watcher else [])]:
            task.cancel()
        self._send_acks()
        await self.tasks.aclose()
        await self._outbox.aclose()
        await self._connection.aclose()

    def abandon(self) -> None:
        """Cancel what still runs, and drop the connection."""
        self._connection._closing = True
        client = self._connection._client
        tasks = [*self._tasks, self._watcher, self._connection._returning]
        if client is not None:
            tasks += [client._reading_task, client._ping_interval_task, client._flusher_task]
            tasks += [session._wait_for_msgs_task for session in client._subs.values()]
        for task in tasks:
            if task is not None and not task.done():
                _drop(task)
        if client is not None and client._transport is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and the socket goes with it
                client._transport.close()  # type: ignore[no-untyped-call]

    def facts(self) -> dict[str, Any]:
        """Where it is connected, and how many calls are out."""
        return {
            "url": self._connection.shown,
            "subject": self._subject,
            "connected": self._connection.connected,
            "inflight": len(self._pending),
        }

    # -- calls --------------------------------------------------------------

    async def run(self, call: Call) -> Any:
        """The call's value; cancelling it cancels it on its worker."""
        pending = self._begin(call, None)
        try:
            await self._publish(pending)
            return load_reply(await pending.outcome)
        except asyncio.CancelledError:
            self._cancel_remote(pending)
            raise
        finally:
            self._end(pending)

    def stream(self, call: Call) -> ItemBuffer:
        """The items of a generator function."""
        return ItemBuffer(lambda items: self._begin_stream(call, items))

    def _begin(self, call: Call, items: ItemBuffer | None) -> _Pending:
        flags = Flag.STREAM if items is not None else 0
        timeout = call.timeout
        _, parts = self._encoder.encode(call, inf if timeout is None else timeout, flags)
        pending = _Pending(call, b"".join(parts), self._loop.time(), items)
        self._pending[call.id] = pending
        if timeout is not None:
            pending.timer = self._loop.call_later(timeout, self._expired, pending)
        if self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())
        return pending

    def _end(self, pending: _Pending) -> None:
        self._pending.pop(pending.call.id, None)
        if pending.timer is not None:
            pending.timer.cancel()

    def _begin_stream(self, call: Call, items: ItemBuffer) -> Callable[[Frame], None]:
        pending = self._begin(call, items)
        self._background(self._run_stream(pending, items))

        def control(frame: Frame) -> None:
            frame.id = call.id
            if frame.kind == FrameKind.CANCEL:
                pending.fail(ExecutorError("The stream was closed."))
                self._cancel_remote(pending)
            elif pending.worker:
                self._outbox.post(pending.worker, pending.worker, encode(frame))

        return control

    async def _run_stream(self, pending: _Pending, items: ItemBuffer) -> None:
        try:
            await self._publish(pending)
            items.put(await pending.outcome)
        except Exception as error:
            items.fail(error)
        finally:
            self._end(pending)

    async def _publish(self, pending: _Pending) -> None:
        """Send the call, waiting out a lost connection as long as allowed."""
        reply = self._inbox + pending.call.id.hex()
        while not pending.outcome.done():
            if self._connection.connected:
                try:
                    await self._connection.publish(self._subjects.call, pending.data, reply)
                except ConnectionLostError:
                    await asyncio.sleep(_PAUSE)  # nothing was sent; the loss is not yet noticed everywhere
                    continue
                pending.heard = self._loop.time()
                return
            up = self._loop.create_task(self._connection.up.wait())
            waits: list[asyncio.Future[Any]] = [up, pending.outcome]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()

    async def _again(self, pending: _Pending, delay: float) -> None:
        """Send a call again that was not started."""
        await asyncio.sleep(delay)
        if pending.timer is not None:
            pending.data = with_seconds(pending.data, pending.timer.when() - self._loop.time())
        try:
            await self._publish(pending)
        except ExecutorError as error:
            pending.fail(error)

    def _background(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _expired(self, pending: _Pending) -> None:
        name, timeout = pending.call.function, pending.call.timeout
        self._cancel_remote(pending)
        pending.fail(
            CallTimeoutError(
                f"{getattr(name, '__qualname__', name)} was not answered within {timeout:g} s.",
                timeout=timeout,
                executor=self._name,
            )
        )

    def _cancel_remote(self, pending: _Pending) -> None:
        receiver = pending.worker or self._subjects.control
        self._outbox.post(receiver, receiver, encode(Frame(FrameKind.CANCEL, pending.call.id)))

    # -- what comes in ------------------------------------------------------

    def _received(self, message: Message) -> None:
        if message.status:
            self._nobody_there(message)
            return
        try:
            for frame in decode_all(message.data):
                self._frame(frame, message.reply, len(message.data))
        except DecodeError as error:
            log.warning("pool %s: a reply that can't be read: %s", self._name, error)

    def _frame(self, frame: Frame, worker: str, size: int) -> None:
        kind = frame.kind
        if kind == FrameKind.BEAT:
            self._beat(frame, worker)
            return
        if kind == FrameKind.REPLY or kind == FrameKind.ERROR:
            self._acknowledge(worker, frame.id, size)
        pending = self._pending.get(frame.id)
        if pending is None or pending.outcome.done():
            return
        pending.heard = self._loop.time()
        pending.worker = worker
        if kind == FrameKind.REPLY or kind == FrameKind.ERROR:
            pending.outcome.set_result(frame)
        elif kind == FrameKind.ITEM and pending.items is not None:
            pending.items.put(frame)
        elif kind == FrameKind.PROGRESS:
            tell_progress(pending.call.on_progress, frame)
        elif kind == FrameKind.REFUSED:
            self._refused(pending)

    def _beat(self, frame: Frame, worker: str) -> None:
        now = self._loop.time()
        for id in split_ids(frame.body):
            pending = self._pending.get(id)
            if pending is not None:
                pending.heard = now
                pending.worker = worker

    def _nobody_there(self, message: Message) -> None:
        pending = self._pending.get(bytes.fromhex(message.subject.rpartition(".")[2]))
        if pending is None or pending.outcome.done():
            return
        if self._loop.time() - self._returned_at < _GRACE:
            self._background(self._again(pending, 0.05 * random.uniform(0.5, 1.5)))
            return
        pending.fail(
            NoWorkersError(
                f"No worker serves {self._subject!r} at {self._connection.shown}. "
                f"Start one: genro-nats worker --url {self._url()} --subject {self._subject}",
                executor=self._name,
                subject=self._subject,
                retry_after=2.0,
            )
        )

    def _denied(self, error: BaseException) -> None:
        """The server forbids what every call needs: no call without a worker so far will find one."""
        text = str(error).lower()  # nats-py lowers the subject's case
        subjects = (self._subjects.call, self._inbox + "*")
        denied = next((s for s in subjects if f'"{s.lower()}"' in text), None)
        if denied is None or "permissions violation" not in text:
            return
        publishing = denied == self._subjects.call
        refusal = ConfigurationError(
            f"The NATS server at {self._connection.shown} does not allow this user to "
            f"{'publish' if publishing else 'subscribe'} to {denied!r}. "
            "Grant it in the server's permissions, or check user, prefix and subject.",
            executor=self._name,
            subject=self._subject,
        )
        if not publishing:
            self._refusal = refusal
        for pending in self._pending.values():
            if not pending.worker:
                pending.fail(refusal)

    def _url(self) -> str:
        return "embedded" if self._options.url == (EMBEDDED,) else self._connection.shown.replace(", ", ",")

    def _refused(self, pending: _Pending) -> None:
        """A full or leaving worker did not start the call."""
        if self._fail_fast:
            pending.fail(
                ExecutorOverloadError(
                    f"Executor '{self._name}': the workers of {self._subject!r} are full.",
                    executor=self._name,
                    retry_after=1.0,
                )
            )
            return
        delay = backoff(pending.retries, *_RETRY) * random.uniform(0.5, 1.5)
        pending.retries += 1
        pending.worker = ""
        self._background(self._again(pending, delay))

    # -- acknowledging ------------------------------------------------------

    def _acknowledge(self, worker: str, id: bytes, size: int) -> None:
        if not worker:
            return
        if not self._acks:
            self._loop.call_later(_ACK_DELAY, self._send_acks)
        self._acks.setdefault(worker, []).append(id)
        if size >= _ACK_BYTES:
            self._send_acks()

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, {}
        for worker, ids in acks.items():
            for batch in batches(ids):
                frame = Frame(FrameKind.ACK, body=b"".join(batch))
                self._outbox.post(worker, worker, encode(frame))

    # -- silence and outages ------------------------------------------------

    async def _watch(self) -> None:
        """Look for calls whose worker fell silent, as long as there are calls."""
        last = self._loop.time()
        while True:
            await asyncio.sleep(_WATCH)
            now = self._loop.time()
            late, last = now - last - _WATCH, now
            if not self._pending:
                self._watcher = None
                return
            # A loop that was blocked has not read its messages yet: no silence of others.
            self._look(now, late if late > _WATCH else 0.0)

    def _look(self, now: float, late: float) -> None:
        if self._down_since is not None:
            if now - self._down_since > self._options.disconnect_timeout:
                self._fail_all_disconnected()
            return
        for pending in list(self._pending.values()):
            pending.heard += late
            if now - pending.heard > SILENCE and not pending.outcome.done():
                self._lost(pending)

    def _lost(self, pending: _Pending) -> None:
        pending.fail(
            WorkerLostError(
                f"The worker of a call to {self._subject!r} has been silent for {SILENCE:g} s: "
                "it died or is cut off. The call may have run.",
                executor=self._name,
                subject=self._subject,
            )
        )

    def _fail_all_disconnected(self) -> None:
        limit = self._options.disconnect_timeout
        for pending in list(self._pending.values()):
            pending.fail(
                ConnectionLostError(
                    f"The NATS server at {self._connection.shown} has been away for {limit:g} s "
                    "(disconnect_timeout). The call may have run.",
                    url=self._connection.shown,
                )
            )

    def _went_down(self) -> None:
        self._down_since = self._loop.time()
        for pending in list(self._pending.values()):
            # Items may be lost with the connection, and a stream with a gap must not go on.
            if pending.items is not None and pending.worker:
                self._cancel_remote(pending)
                pending.fail(
                    ConnectionLostError(
                        f"The connection to the NATS server at {self._connection.shown} was lost "
                        "while a stream ran: items may be missing.",
                        url=self._connection.shown,
                    )
                )

    def _came_back(self) -> None:
        """Ask the workers which of our calls they hold, and give them time to answer."""
        self._down_since = None
        self._returned_at = now = self._loop.time()
        ids = []
        for id, pending in self._pending.items():
            pending.heard = now
            ids.append(id)
        control = self._subjects.control
        for batch in batches(ids):
            frame = Frame(FrameKind.QUERY, body=b"".join(batch), name=self._inbox.encode())
            self._outbox.post(control, control, encode(frame))


def _drop(task: asyncio.Task[Any]) -> None:
    """End a task whose loop may never run again, without a word."""
    if task.get_loop().is_running():
        task.cancel()
        return
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    with contextlib.suppress(Exception):  # what it does to end may need a loop
        coroutine.close()
