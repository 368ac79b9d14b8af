"""What callers ask of a worker about their calls: cancels, credits, acknowledgements, questions, functions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from genro_nats.codec.frame import (
    Buffer,
    Frame,
    FrameKind,
    decode_all,
    encode,
)
from genro_nats.codec.ids import batches, split_ids
from genro_nats.errors import (
    DecodeError,
    ExecutorError,
)
from genro_nats.events import Events
from genro_nats.executor.children.pool import ChildPool
from genro_nats.transport.nats import Message
from genro_nats.transport.outbox import Outbox
from genro_nats.worker.balance.giving import Giving
from genro_nats.worker.callers import CallerVersions
from genro_nats.worker.functions import FunctionShelf
from genro_nats.worker.outlet import Outlet
from genro_nats.worker.remote_work import RemoteWork

__all__ = ["Control"]

_MAX_CREDIT: Final = 1_000_000  # items granted at once
_CANCELLED: Final = 10_000  # ids remembered of cancels that came before their call


class Control:
    """``works``: the calls that are held, by id; ``counts``: where what can't be read is counted."""

    def __init__(
        self,
        works: Mapping[bytes, RemoteWork],
        children: ChildPool,
        giving: Giving,
        functions: FunctionShelf,
        outlet: Outlet,
        outbox: Outbox,
        counts: dict[str, int],
        events: Events,
    ) -> None:
        self._works = works
        self._children = children
        self._giving = giving
        self._functions = functions
        self._outlet = outlet
        self._retention = outlet.retention
        self._outbox = outbox
        self._counts = counts
        self._events = events
        self._cancelled: OrderedDict[bytes, None] = OrderedDict()
        self.on_caller: Callable[[Buffer], object] = CallerVersions(events)

    def is_cancelled(self, id: bytes) -> bool:
        """Did the cancel of a call come before it?"""
        return id in self._cancelled

    def heard(self, message: Message) -> None:
        """Cancels, credits, acknowledgements and questions; for unknown calls they mean nothing."""
        try:
            for frame in decode_all(message.data):
                self.obey(frame)
        except DecodeError as error:
            self._counts["rejected"] += 1
            self._events("control.rejected", subject=message.subject, error=str(error))

    def obey(self, frame: Frame) -> None:
        """Do what a caller asks. Raises DecodeError."""
        if frame.kind == FrameKind.ACK:
            if frame.meta:
                self.on_caller(frame.meta)
            for id in split_ids(frame.body):
                self._retention.drop(id)
        elif frame.kind == FrameKind.CREDIT:
            if not 0 < frame.seconds <= _MAX_CREDIT:
                raise DecodeError(f"A credit of {frame.seconds} items.", id=frame.id)
            if (work := self._works.get(frame.id)) is not None:
                self._children.control(work, frame)
            else:
                self._giving.follow(frame)
        elif frame.kind == FrameKind.CANCEL:
            self._cancel(frame)
        elif frame.kind == FrameKind.QUERY:
            self._report(frame)
        elif frame.kind == FrameKind.FUNCTION or frame.kind == FrameKind.GONE:
            self._functions.received(frame)

    def _cancel(self, frame: Frame) -> None:
        work = self._works.get(frame.id)
        if work is None or work.stream:
            self._outlet.unwanted(frame.id, ended=work is None)
        if work is not None:
            self._children.cancel(work, ExecutorError("The call was cancelled by its caller."))
            return
        # Its call may have been handed on, or it has overtaken it.
        self._giving.follow(frame)
        self._cancelled[frame.id] = None
        if len(self._cancelled) > _CANCELLED:
            self._cancelled.popitem(last=False)

    def _report(self, frame: Frame) -> None:
        """A caller came back and asks what we hold: beat for those, and send replies again."""
        held = []
        for id in split_ids(frame.body):
            if id in self._works:
                held.append(self._works[id])
            elif (kept := self._retention.get(id)) is not None:
                self._outbox.post(kept.subject, kept.subject, kept.data)
        self.beat(held)

    def beat(self, works: list[RemoteWork]) -> None:
        """Tell the callers of these calls that they are held."""
        by_caller: dict[str, list[RemoteWork]] = {}
        for work in works:
            by_caller.setdefault(work.caller, []).append(work)
        for caller, held in by_caller.items():
            for batch in batches(held):
                body = b"".join(work.id for work in batch)
                self._outbox.post(caller, batch[0].reply, encode(Frame(FrameKind.BEAT, body=body)))
