"""The engine of NATS pools: calls go to a subject, replies come to an inbox of our own.

A call is published once, and again only when it provably was not started:
nobody subscribed, or a worker refused it. From then on the caller waits for
the reply and watches for silence: a worker beats once a second for each call
it holds, and five silent seconds mean it is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from math import inf
from typing import Any, Final

from genro_nats.codec.frame import Flag, Frame, FrameKind, encode
from genro_nats.codec.function_store import FunctionStore
from genro_nats.codec.ids import batches
from genro_nats.config import EMBEDDED, PoolOptions
from genro_nats.errors import (
    CallTimeoutError,
    ConnectionLostError,
    ExecutorClosedError,
    ExecutorError,
    ExecutorOverloadError,
    NoWorkersError,
    PermissionDeniedError,
    WorkerLostError,
)
from genro_nats.executor.incoming import ItemBuffer
from genro_nats.executor.nats_acks import Acks
from genro_nats.executor.nats_functions import FunctionAnswers
from genro_nats.executor.nats_pending import Pending
from genro_nats.executor.nats_replies import Replies
from genro_nats.executor.nats_sending import CallSender
from genro_nats.executor.nats_silence import SILENCE, Silence
from genro_nats.executor.nats_tasks.backend import NatsTasks
from genro_nats.executor.pressing import make_encoder
from genro_nats.executor.wire import load_reply
from genro_nats.message import Call
from genro_nats.transport.abandoned import drop_task
from genro_nats.transport.address import Address
from genro_nats.transport.backoff import backoff
from genro_nats.transport.denials import Denied
from genro_nats.transport.guard import make_guard
from genro_nats.transport.identity import identity, named_peer
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.subjects import caller_inbox, pool_subjects
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["NatsEngine"]

_RETRY: Final = (0.02, 0.5)  # seconds, first and last, before a refused call is sent again; jittered
_GAP: Final = 5.0  # seconds in which a fleet that refused a call may have nobody: it is being replaced
_LOSSES: Final = 3  # workers that may be lost before they have a call's arguments


class NatsEngine:
    """Kind ``nats``: the caller's side."""

    def __init__(self, options: PoolOptions, *, name: str, owner: str) -> None:
        assert options.subject is not None
        self._options = options
        self._name = name
        self._subject = options.subject
        self._subjects = pool_subjects(options.prefix, options.subject)
        self._fail_fast = options.overload == "fail"
        self._functions = FunctionStore(options.function_cache)
        self._encoder = make_encoder(
            options.compression, options.codec, name, store=self._functions, by=options.by
        )
        self._pending: dict[bytes, Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._guard = make_guard(options)
        self._connection = Connection(
            Address(options), f"genro-nats caller {name}", options.connect_timeout, self._guard
        )
        self._inbox = caller_inbox(options.prefix, named_peer(identity(options), 24))
        self.tasks = NatsTasks(self._connection, options, name, owner, self._encoder, lambda: self._transfer)

    # -- life ---------------------------------------------------------------

    async def start(self) -> None:
        """Connect. Raises ConnectionLostError, PermissionDeniedError or ConfigurationError."""
        self._loop = asyncio.get_running_loop()
        options = self._options
        self._transfer = Transfer(options, f"genro-nats caller {self._name}, payloads", self._guard)
        self._silence = Silence(self._connection, self._pending, options.disconnect_timeout, self._lost)
        await self._connection.start()
        self._sender = CallSender(
            self._connection,
            self._transfer,
            options,
            self._name,
            self._subjects.call,
            self._inbox,
            self._pending,
        )
        self._outbox = Outbox(self._connection)
        self._acks = Acks(self._outbox)
        self._answers = FunctionAnswers(self._functions, self._outbox, self._transfer, options.inline_limit)
        self._replies = Replies(
            self._name,
            self._pending,
            self._acks,
            self._transfer,
            options.max_payload_size,
            self._encoder.codecs,
            self._refused,
            self._broken,
            self._asked,
            self._guard.unreadable,
        )
        self._connection.on_up.append(self._came_back)
        self._connection.on_down.append(self._went_down)
        self._connection.streaming.append(lambda: any(p.items is not None for p in self._pending.values()))
        self._connection.denials.listeners.append(self._denied)
        self._transfer.owner.on_denied = self._payload_denied
        await self._connection.subscribe(self._inbox + "*", self._received, flawed=self._replies.distrusted)
        await self._connection.flush()
        if (refusal := self._connection.denials.refused(self._inbox + "*")) is not None:
            await self.aclose(wait=False)
            raise refusal

    async def aclose(self, wait: bool = True) -> None:
        """Leave; with ``wait`` once every call has its reply."""
        while wait and self._pending:
            await asyncio.wait([p.outcome for p in self._pending.values()])
            await asyncio.sleep(0)
        error = ExecutorClosedError(f"The executor '{self._name}' was shut down.", executor=self._name)
        for pending in list(self._pending.values()):
            self._cancel_remote(pending)
            pending.fail(error)
        watcher = self._silence.watcher
        for task in [*self._tasks, *([watcher] if watcher else [])]:
            task.cancel()
        for pending in list(self._pending.values()):
            self._end(pending)
        await asyncio.sleep(0)  # pulls that were cancelled acknowledge what nobody wants any more
        self._acks.send()
        self._answers.aclose()
        await self.tasks.aclose()
        await self._outbox.aclose()
        await self._transfer.aclose()
        await self._connection.aclose()

    def abandon(self) -> None:
        """Cancel what still runs, and drop the connection."""
        for task in [*self._tasks, self._silence.watcher, *(p.pulling for p in self._pending.values())]:
            if task is not None and not task.done():
                drop_task(task)
        self._transfer.abandon()
        self._connection.abandon()

    def facts(self) -> dict[str, Any]:
        """Where it is connected, and how many calls are out."""
        return {
            "url": self._connection.shown,
            "subject": self._subject,
            "connected": self._connection.connected,
            "inflight": len(self._pending),
            "distrusted": dict(self._guard.rejected),
        }

    # -- calls --------------------------------------------------------------

    async def run(self, call: Call) -> Any:
        """The call's value; cancelling it cancels it on its worker."""
        pending = self._begin(call, None)
        try:
            if not self._sender.posted(pending):
                await self._sender.publish(pending)
            return load_reply(await pending.outcome, self._encoder.codecs)
        except asyncio.CancelledError:
            self._cancel_remote(pending)
            raise
        finally:
            self._end(pending)

    def stream(self, call: Call) -> ItemBuffer:
        """The items of a generator function."""
        return ItemBuffer(lambda items: self._begin_stream(call, items), self._encoder.codecs)

    def _begin(self, call: Call, items: ItemBuffer | None) -> Pending:
        flags = (Flag.STREAM if items is not None else 0) | (Flag.NO_QUEUE if self._fail_fast else 0)
        timeout = call.timeout
        frame, function = self._encoder.encode(call, inf if timeout is None else timeout, flags)
        if function is not None:
            self._sender.check_size(frame.name, function.size)
        pending = Pending(call, self._loop.time(), self._loop.create_future(), items)
        pending.function = function
        self._sender.prepare(pending, frame)
        self._pending[call.id] = pending
        if timeout is not None:
            pending.timer = self._loop.call_later(timeout, self._expired, pending)
        self._silence.watch()
        return pending

    def _end(self, pending: Pending) -> None:
        self._pending.pop(pending.call.id, None)
        # An error's traceback holds the call, and would hold its data.
        pending.parts, pending.unpressed = (), None
        if pending.timer is not None:
            pending.timer.cancel()
        if pending.reference is not None:
            self._transfer.owner.drop(pending.reference.payload)
        if pending.pulling is not None:
            pending.pulling.cancel()

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

    async def _run_stream(self, pending: Pending, items: ItemBuffer) -> None:
        try:
            await self._sender.publish(pending)
            items.put(await pending.outcome)
        except Exception as error:
            items.fail(error)
        finally:
            self._end(pending)

    def _background(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _expired(self, pending: Pending) -> None:
        name, timeout = pending.call.function, pending.call.stated
        self._cancel_remote(pending)
        pending.fail(
            CallTimeoutError(
                f"{getattr(name, '__qualname__', name)} was not answered within {timeout:g} s.",
                timeout=timeout,
                executor=self._name,
            )
        )

    def _cancel_remote(self, pending: Pending) -> None:
        receiver = pending.worker or self._subjects.control
        self._outbox.post(receiver, receiver, encode(Frame(FrameKind.CANCEL, pending.call.id)))

    # -- what comes in ------------------------------------------------------

    def _received(self, message: Message) -> None:
        if message.status:
            self._nobody_there(message)
        else:
            self._replies.received(message)

    def _broken(self, pending: Pending, error: Exception) -> None:
        """What the worker sends can't be had."""
        if pending.items is not None:
            self._cancel_remote(pending)
        pending.fail(error)

    def _asked(self, frame: Frame, worker: str) -> None:
        """A worker lacks a function."""
        self._answers.asked(frame, worker, self._connection.max_payload)

    def _nobody_there(self, message: Message) -> None:
        pending = self._pending.get(bytes.fromhex(message.subject.rpartition(".")[2]))
        if pending is None or pending.outcome.done() or pending.worker:
            return  # nobody can sign this word: where a worker has shown itself since, it is not the server's
        # A server that leaves cuts its clients off one by one: a worker before us, perhaps.
        returning = self._silence.just_returned or self._connection.lame
        if returning or self._between_workers(pending):
            self._background(self._sender.again(pending, 0.05 * random.uniform(0.5, 1.5)))
            return
        if self._loop.time() - pending.began < self._options.workers_timeout:
            self._later(pending)
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

    def _between_workers(self, pending: Pending) -> bool:
        """Was it refused by a worker that left a moment ago? The one in its place may still be on its way."""
        now = self._loop.time()
        if pending.missed is None:
            pending.missed = now
        return pending.refused and now - pending.missed < _GAP

    def _denied(self, denied: Denied) -> bool:
        """The server forbids what every call needs: no call without a worker so far will find one."""
        subject = self._subjects.call if denied.publishing else self._inbox + "*"
        if not denied.meets(subject):
            return False
        for pending in self._pending.values():
            if not pending.worker:
                pending.fail(denied.error(subject))
        return True

    def _payload_denied(self, payload: bytes, error: PermissionDeniedError) -> None:
        """The server forbids to send a call's arguments to the worker that asks for them."""
        for pending in list(self._pending.values()):
            if pending.reference is not None and pending.reference.payload == payload:
                self._cancel_remote(pending)
                pending.fail(error)

    def _url(self) -> str:
        return "embedded" if self._options.url == (EMBEDDED,) else self._connection.shown.replace(", ", ",")

    def _refused(self, pending: Pending, full: bool) -> None:
        """No worker started the call; ``full``: none had room for it. Else one was leaving, or had too many."""
        if full and self._fail_fast:
            pending.fail(
                ExecutorOverloadError(
                    f"Executor '{self._name}': no worker of {self._subject!r} has a free child.",
                    executor=self._name,
                    retry_after=1.0,
                )
            )
            return
        pending.refused, pending.missed = True, None
        self._later(pending)

    def _later(self, pending: Pending) -> None:
        """It was not started: send it again, each time after a longer pause."""
        delay = backoff(pending.retries, *_RETRY) * random.uniform(0.5, 1.5)
        pending.retries += 1
        pending.worker = ""
        self._background(self._sender.again(pending, delay))

    # -- silence and outages ------------------------------------------------

    def _lost(self, pending: Pending) -> None:
        """A worker fell silent. A call whose arguments it never had in full goes to another one."""
        reference = pending.reference
        owner = self._transfer.owner
        if reference and pending.losses < _LOSSES and not owner.delivered(reference.payload):
            pending.losses += 1
            pending.left |= {pending.worker}
            pending.heard = self._loop.time()
            pending.worker = ""
            # From now on the lost one can't get the rest, should it come back.
            owner.drop(reference.payload)
            self._background(self._sender.again(pending, 0.0))
            return
        pending.fail(
            WorkerLostError(
                f"The worker of a call to {self._subject!r} has been silent for {SILENCE:g} s: "
                "it died or is cut off. The call may have run.",
                executor=self._name,
                subject=self._subject,
            )
        )

    def _went_down(self) -> None:
        self._silence.down()
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
        self._silence.up()
        ids = list(self._pending)
        control = self._subjects.control
        for batch in batches(ids):
            frame = Frame(FrameKind.QUERY, body=b"".join(batch), name=self._inbox.encode())
            self._outbox.post(control, control, encode(frame))
