"""What the balance between workers needs from the service whose calls it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from genro_nats.codec.frame import Buffer, Frame
from genro_nats.executor.children.pool import ChildPool
from genro_nats.executor.children.work import Work
from genro_nats.transport.nats import Message

__all__ = ["Holder", "Movable"]


class Movable(Work):
    """A call that may be handed on: its reply subject, its hops so far; ``announced`` stands for a large one.

    ``came``: event loop time, here or to the worker that had it before. ``urgent``: it must not queue.
    """

    __slots__ = ("announced", "came", "hops", "reply", "urgent")

    announced: bytes
    came: float
    hops: int
    reply: str
    urgent: bool

    @property
    def message(self) -> bytes:
        """The call as it came, while no child has it."""
        return self.announced or b"".join(cast("Sequence[Buffer]", self.parts))


class Holder(Protocol):
    """Whose calls these are."""

    children: ChildPool

    def called(self, message: Message, came: float | None = None) -> object:
        """A call for this worker, from another one."""

    def obey(self, frame: Frame) -> object:
        """What a caller asks, sent after its call."""

    def refuse(self, reply: str, id: bytes) -> object:
        """Tell a caller that its call is not run here."""

    def handed_on(self, work: Any) -> object:
        """This call is another worker's now."""

    def admit(self, work: Any) -> object:
        """A large call is to run here."""
