"""What comes to a caller's inbox: frames to the calls they belong to, in their order.

A frame that refers to a payload is pulled first; what comes for the same call
meanwhile waits behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Final

from genro_nats.codec.assembly import FrameAssembly
from genro_nats.codec.codecs import Codecs
from genro_nats.codec.compression import expand, expands_large
from genro_nats.codec.frame import Flag, Frame, FrameKind, content_size, decode_all
from genro_nats.codec.reference import Reference, referred
from genro_nats.codec.signing import MAGIC, SEAL_SIZE
from genro_nats.errors import (
    DecodeError,
    ExecutorError,
    PayloadTooLargeError,
    PermissionDeniedError,
    TransportError,
    WorkerLostError,
)
from genro_nats.executor.incoming import tell_progress
from genro_nats.executor.nats_acks import Acks
from genro_nats.executor.nats_pending import Pending
from genro_nats.transport.apart import expand_apart
from genro_nats.transport.nats import Message
from genro_nats.transport.transfer.puller import REMIND
from genro_nats.transport.transfer.transfer import Transfer

__all__ = ["Replies"]

log: Final = logging.getLogger("genro_nats.executor")

_OUTCOMES: Final = (FrameKind.REPLY, FrameKind.ERROR)


class Replies:
    """``on_refused(pending, full)``: no worker started it. ``on_broken(pending, error)``: it can't go on.

    ``on_fetch(frame, worker)``: a worker lacks a function. ``on_unreadable(subject, error)``: no answer at all.
    """

    def __init__(
        self,
        name: str,
        pending: Mapping[bytes, Pending],
        acks: Acks,
        transfer: Transfer,
        limit: int,
        codecs: Codecs,
        on_refused: Callable[[Pending, bool], None],
        on_broken: Callable[[Pending, Exception], None],
        on_fetch: Callable[[Frame, str], None],
        on_unreadable: Callable[[str, object], None],
    ) -> None:
        self._name = name
        self._pending = pending
        self._acks = acks
        self._transfer = transfer
        self._limit = limit
        self._codecs = codecs
        self._on_refused = on_refused
        self._on_broken = on_broken
        self._on_fetch = on_fetch
        self._on_unreadable = on_unreadable
        self._loop = asyncio.get_running_loop()
        self._reminding: asyncio.TimerHandle | None = None

    def received(self, message: Message) -> None:
        """A message with frames."""
        try:
            for frame in decode_all(message.data):
                self._frame(frame, message.reply, len(message.data))
        except DecodeError as error:
            self._on_unreadable(message.subject, error)
            if "version" in error.fields:  # who speaks another one says nothing else that could be read
                self._end(message, error)

    def _end(self, message: Message, error: ExecutorError) -> None:
        for id in _named_in(message):
            if (pending := self._pending.get(id)) is not None:
                self._on_broken(pending, error)

    def distrusted(self, message: Message) -> None:
        """What must not be believed ends the calls that it is about: their worker would not be heard either."""
        flaw = message.flaw
        assert flaw is not None
        if flaw.reason == "replayed":
            return
        self._end(
            message,
            flaw.error(f"An answer to a call of pool '{self._name}', which may have run, was refused"),
        )

    def _frame(self, frame: Frame, worker: str, size: int) -> None:
        if frame.kind == FrameKind.BEAT:
            self._beat(frame, worker)
            return
        if frame.kind == FrameKind.FETCH:
            self._on_fetch(frame, worker)
        pending = self._pending.get(frame.id)
        live = pending is not None and not pending.outcome.done()
        if frame.kind in _OUTCOMES and not (live and frame.flags & Flag.REFERRED):
            self._acks.add(worker, frame.id, size)
        if pending is None or not live or (pending.left and self._is_stale(pending, frame, worker)):
            return
        pending.heard = self._loop.time()
        pending.worker = worker
        if frame.kind == FrameKind.REFUSED:
            self._on_refused(pending, bool(frame.flags & Flag.NO_QUEUE))
        elif size > self._limit and (own := content_size(frame)) > self._limit:
            self._broken(pending, self._too_large(own))
        elif pending.pulling is None:
            self._deliver(pending, frame)
        elif not _has_outcome(pending):  # else it is that, sent again
            pending.backlog.append(frame)
            if frame.flags & Flag.REFERRED and self._reminding is None:
                self._reminding = self._loop.call_later(REMIND, self._remind)

    def _remind(self) -> None:
        """Behind what takes long, payloads of the same call wait to be pulled: tell their owners."""
        self._reminding = None
        waiting = [f for one in self._pending.values() for f in one.backlog if f.flags & Flag.REFERRED]
        for frame in waiting:
            with contextlib.suppress(DecodeError):  # its own turn says so
                self._transfer.want(referred(frame.body))
        if waiting:
            self._reminding = self._loop.call_later(REMIND, self._remind)

    def _is_stale(self, pending: Pending, frame: Frame, worker: str) -> bool:
        """Does a worker that was lost, and is back, speak of what it had of a call? Another may run that by now."""
        if frame.kind == FrameKind.REFUSED:
            return worker in pending.left or pending.worker not in ("", worker)
        if frame.kind != FrameKind.ERROR or frame.flags & Flag.REFERRED or pending.reference is None:
            return False
        with contextlib.suppress(ExecutorError):
            lacked = getattr(self._codecs.load_error(frame.flags, frame.body), "payload", None)
            return lacked not in (None, pending.reference.payload.hex())
        return False

    def _beat(self, frame: Frame, worker: str) -> None:
        now, ids = self._loop.time(), bytes(frame.body)
        for at in range(0, len(ids), 16):
            pending = self._pending.get(ids[at : at + 16])
            if pending is not None:
                pending.heard = now
                pending.worker = worker

    def _deliver(self, pending: Pending, frame: Frame) -> None:
        pending.pulled = frame.kind
        if frame.flags & Flag.REFERRED:
            pending.pulling = self._loop.create_task(self._pull(pending, frame, pending.worker))
            return
        if expands_large(frame):
            pending.pulling = self._loop.create_task(self._expand(pending, frame))
            return
        if frame.flags & Flag.COMPRESSED and not self._expanded(pending, frame):
            return
        if frame.kind in _OUTCOMES:
            pending.outcome.set_result(frame)
        elif frame.kind == FrameKind.ITEM and pending.items is not None:
            pending.items.put(frame)
        elif frame.kind == FrameKind.PROGRESS:
            tell_progress(pending.call.on_progress, frame, self._codecs)

    def _expanded(self, pending: Pending, frame: Frame) -> bool:
        try:
            expand(frame, self._limit)
        except ExecutorError as error:
            self._broken(pending, error)
            return False
        return True

    async def _pull(self, pending: Pending, announced: Frame, worker: str) -> None:
        """Pull what a frame refers to, and go on with that in its place."""
        size = 0
        try:
            reference = self._acceptable(announced)
            size = reference.size
            frame = await self._pulled(pending, reference)
            if (frame.kind, frame.id) != (announced.kind, announced.id) or frame.flags & Flag.REFERRED:
                raise DecodeError("A payload that is not the one which was announced.", id=announced.id)
        except Exception as error:
            self._broken(pending, error)
        else:
            pending.backlog.appendleft(frame)
        finally:
            pending.pulling = None
            if announced.kind in _OUTCOMES:
                self._acks.add(worker, announced.id, size)
        self._go_on(pending)

    async def _expand(self, pending: Pending, frame: Frame) -> None:
        """Expand what is large apart from the loop, and go on with that."""
        try:
            pending.backlog.appendleft(await expand_apart(frame, self._limit))
        except Exception as error:
            self._broken(pending, error)
        finally:
            pending.pulling = None
        self._go_on(pending)

    def _go_on(self, pending: Pending) -> None:
        """Deliver what came while something was pulled or expanded."""
        while pending.backlog and pending.pulling is None and not pending.outcome.done():
            self._deliver(pending, pending.backlog.popleft())

    async def _pulled(self, pending: Pending, reference: Reference) -> Frame:
        assembly = FrameAssembly(reference.size)

        def moved() -> None:
            pending.heard = self._loop.time()

        await self._transfer.pull(reference, assembly, moved)
        return assembly.frame()

    def _acceptable(self, frame: Frame) -> Reference:
        reference = referred(frame.body)
        if reference.size > self._limit:
            raise self._too_large(reference.size)
        return reference

    def _too_large(self, size: int) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"An answer of {size:,} bytes; pool '{self._name}' takes {self._limit:,} (max_payload_size).",
            size=size,
            limit=self._limit,
        )

    def _broken(self, pending: Pending, error: Exception) -> None:
        if isinstance(error, TransportError) and not isinstance(error, PermissionDeniedError):
            error = WorkerLostError(
                f"The result of a call of pool '{self._name}' could not be pulled from its worker, "
                f"which has run it: {error}",
                executor=self._name,
            )
        elif not isinstance(error, ExecutorError):
            error = ExecutorError(f"The result could not be put together: {type(error).__name__}: {error}")
        self._on_broken(pending, error)


def _has_outcome(pending: Pending) -> bool:
    """Is a call's outcome being pulled, or does it wait behind what is? Nothing comes after it but itself."""
    last = pending.backlog[-1].kind if pending.backlog else pending.pulled
    return last in _OUTCOMES


def _named_in(message: Message) -> set[bytes]:
    """The calls that an answer says to be about, none of it verified."""
    found: set[bytes] = set()
    with contextlib.suppress(ValueError):
        found.add(bytes.fromhex(message.subject.rpartition(".")[2]))
    data = message.data[SEAL_SIZE:] if message.data[:4] == MAGIC else message.data
    with contextlib.suppress(DecodeError):
        found.update(frame.id for frame in decode_all(data))
    return found
