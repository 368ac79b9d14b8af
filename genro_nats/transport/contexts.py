"""What a message's signature covers beside its data: what it is, and where it was meant to go.

Core messages are bound to their subject and reply subject. A stored message outlives
its way there, and the server moves some: it is bound to what stays true of it. No I/O.

====================  ==================================================================
``P.task.T.…``        the subject without ``now`` or ``later``: the server moves delayed tasks
a schedule's run      the schedule's subject and its target; so nothing else can pass for one
``P.told.T.O.I``      as ``P.state.T.O.I``, whose republished form it is
what has a sequence   that too: an old record can only be stored again where it was before
everything else       the subject and the reply subject
====================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from genro_nats.transport.headers import Headers
from genro_nats.transport.schedules import fired_by, target_of
from genro_nats.transport.subjects import is_schedule

__all__ = ["PULL", "SERVER", "STORED", "Contexts"]

# Rooms whose messages are read again from a stream: the reply subject was the server's answer to who
# stored them, and they are heard at any age.
STORED: Final = frozenset({"task", "schedule", "state", "told", "ask", "note", "index", "dead", "blob"})
PULL: Final = "pull"  # where consumers deliver messages of streams, each with its own subject
# There the server and its API speak, and JetStream's answers come: not a word of theirs is unpickled, and
# the messages of ours that they quote are verified one by one.
SERVER: Final = frozenset({"$", "api"})
_UNREPLIED: Final = frozenset({"bulk"})  # frames of large payloads name the subject to answer to
_SPECIAL: Final = STORED | SERVER | _UNREPLIED
_POOLS: Final = 64
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_LINE: Final = b"\r\n" + _EXPECTED.encode() + b": "


class Contexts:
    """The contexts of all messages under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._start = len(prefix) + 1
        self._prefix = prefix + "."
        self.calls: dict[str, bytes] = {}  # by subject: how the contexts of a pool's calls begin

    def room(self, subject: str) -> str:
        """The word after the prefix; "$" where only the server speaks, "" for other subjects not of ours."""
        start = self._start
        if subject[:start] == self._prefix:
            return subject[start : subject.find(".", start)]
        return subject[:1] if subject.startswith("$") else ""

    def is_plain(self, subject: str) -> bool:
        """Is the context of what comes there, or to subjects that match it, subject and reply subject as they are?"""
        room = self.room(subject)
        return room != "" and room != PULL and room not in _SPECIAL

    def sent(self, subject: str, reply: str, headers: Mapping[str, str] | None, block: bytes) -> bytes | None:
        """Of a message that is about to be published; None: it is meant for the server, which signs nothing.

        ``block``: headers made before, instead of ``headers``.
        """
        begun = self.calls.get(subject)
        if begun is not None:
            return begun + reply.encode()
        room = self.room(subject)
        if room not in _SPECIAL:
            if room == "call" and len(self.calls) < _POOLS:
                self.calls[subject] = f"{subject}\n".encode()
            return f"{subject}\n{reply}".encode()
        if room in SERVER:
            return None
        if room in _UNREPLIED:
            return _plain(subject, "")
        if room == "task":
            return _plain(_task(subject), "")
        if room == "schedule":
            return _plain(subject, target_of(headers or Headers(block)))
        return _plain(subject, headers.get(_EXPECTED, "") if headers else _expected_in(block))

    def heard(self, subject: str, room: str, reply: str, headers: Mapping[str, str]) -> bytes:
        """Of one that came, or was read from a stream; ``room``: of its subject."""
        if room not in _SPECIAL:
            return f"{subject}\n{reply}".encode()
        if room in _UNREPLIED:
            return _plain(subject, "")
        if room == "task":
            scheduler = fired_by(headers) if headers else ""
            return _plain(scheduler, subject) if is_schedule(scheduler) else _plain(_task(subject), "")
        if room == "schedule":
            return _plain(subject, target_of(headers))
        if room == "told":
            subject = f"{self._prefix}state{subject[self._start + 4 :]}"
        return _plain(subject, headers.get(_EXPECTED, "") if headers else "")

    def buried(self, subject: str) -> tuple[bytes, ...]:
        """Of a task's message in a dead letter, where its headers are not: as a task, or as a schedule's run."""
        if self.room(subject) != "task":
            return (_plain(subject, ""),)
        start, *_, name = subject.rsplit(".", 4)
        schedule = f"{self._prefix}schedule{start[self._start + 4 :]}.{name}"
        return _plain(_task(subject), ""), _plain(schedule, subject)


def _plain(subject: str, other: str) -> bytes:
    return f"{subject}\n{other}".encode()  # no subject holds the end of a line


def _task(subject: str) -> str:
    start, _phase, *rest = subject.rsplit(".", 4)
    return ".".join((start, *rest))


def _expected_in(block: bytes) -> str:
    at = block.find(_EXPECTED_LINE)
    if at < 0:
        return ""
    at += len(_EXPECTED_LINE)
    return block[at : block.index(b"\r", at)].decode()
