"""What workers of a pool say to each other, to and from bytes, and how it is sent."""

from __future__ import annotations

import os
import struct
from math import inf
from typing import Final, NamedTuple

from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, decode, encode
from genro_nats.codec.reference import plain_subject
from genro_nats.errors import ConnectionLostError, DecodeError, PayloadTooLargeError
from genro_nats.transport.nats import Connection, Message
from genro_nats.worker.balance.decisions import Waiting, Wish

__all__ = ["GONE", "NONE", "Letters", "Passed", "count", "is_passed", "passed", "told"]

NONE: Final = Waiting(0, inf)
GONE: Final = Waiting(-1, inf)  # the sender leaves
_AGE: Final = struct.Struct("!d")
_COVER: Final = bytes([FrameKind.REFUSED])
_MOST: Final = 1e9


class Passed(NamedTuple):
    """A call that a worker hands on, and where its replies go."""

    id: bytes
    reply: str
    call: bytes


class Letters:
    """Sends to all workers of a pool (``group``), and to one of them, whose ``address`` is a token below that."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._connection = connection
        self.group = group
        self.address = f"{group}.{os.urandom(8).hex()}"

    def is_peer(self, subject: str) -> bool:
        """Is it below the group's subject, as workers' addresses are?"""
        return subject.startswith(f"{self.group}.")

    def tell(self, receiver: str, own: Waiting, now: float) -> None:
        """Say what waits here."""
        age = _AGE.pack(max(0.0, now - own.since)) if own.calls > 0 else b""
        self.send(receiver, encode(Frame(FrameKind.WAITING, body=age, seconds=own.calls)))

    def ask(self, wish: Wish) -> bool:
        """Ask for calls; False: it was not sent."""
        flags = Flag.NO_QUEUE if wish.older else 0
        return self.send(wish.peer, encode(Frame(FrameKind.TAKE, flags=flags, seconds=wish.calls)))

    def hand(self, peer: str, it: Passed) -> str:
        """Hand a call on; where its receipt comes, "" where it was not sent."""
        receipt = f"{self.address}.{it.id.hex()}"
        cover = encode(Frame(FrameKind.REFUSED, it.id, name=it.reply.encode()))
        return receipt if self.send(peer, cover + it.call, receipt) else ""

    def confirm(self, receipt: str, id: bytes) -> None:
        """Say that a call has arrived."""
        self.send(receipt, encode(Frame(FrameKind.BEAT, body=id)))

    def send(self, receiver: str, data: Buffer, reply: str = "") -> bool:
        """Send it now; False: it was not sent."""
        try:
            return self._connection.publish_now(receiver, data, reply or self.address)
        except (ConnectionLostError, PayloadTooLargeError):
            return False


def count(frame: Frame) -> int:
    """How many calls a frame speaks of. Raises DecodeError."""
    if not -1 <= frame.seconds <= _MOST:
        raise DecodeError(f"A count of {frame.seconds}.", id=frame.id)
    return int(frame.seconds)


def told(frame: Frame, now: float) -> Waiting:
    """What a WAITING frame says. Raises DecodeError."""
    age = _AGE.unpack(frame.body)[0] if len(frame.body) == _AGE.size else 0.0
    return Waiting(count(frame), now - age)


def is_passed(data: bytes) -> bool:
    """Does a message to one worker begin as a call that is handed on?"""
    return data[3:4] == _COVER


def passed(message: Message) -> Passed:
    """The call in a message. Raises DecodeError."""
    cover, at = decode(message.data)
    if not plain_subject(cover.name):
        raise DecodeError("A call that was handed on without a proper reply subject.", id=cover.id)
    return Passed(cover.id, cover.name.decode("ascii"), message.data[at:])
