"""The names of subjects and queue groups, all of them.

Identity on the wire is prefix plus subject. ``P`` is the prefix, ``S`` the
pool's subject::

    P.call.S              calls; workers share them in the queue group "workers"
    P.control.S           to all workers of a pool: cancels, questions
    P.peers.S             between the workers of a pool: where calls wait
    P.peers.S.B           to one of them, B being its place in this pool: offers,
                          questions, calls handed on
    P.worker.W            to one worker: cancels, credits, acknowledgements
    P.worker.W.drain      to one worker: finish what you have, and leave
    P.presence.beat.W     a worker's heartbeat
    P.presence.ask        to all workers: show yourselves
    P.reply.U.C.*         to one caller: replies, items, beats; the last token
                          is the call's id, so that the server's own "no
                          responders" names its call
    P.bulk.U.X.*          to one owner or puller of large payloads: pulls to
                          ``owner``, chunks to the pull's id
    P.api.U.C.*           JetStream's answers to one caller or worker
    P.pull.W.N.>          to an intake of worker W: tasks and the server's words
                          about its pulls; N is the consumer's name

``U`` is the user: 8 hex digits of the digest of its public nkey, "=" where
it has none (see ``transport/identity.py``), so that a server's permissions
can keep users apart.

Of tasks, where ``T`` is the pool's subject as one token, ``L`` a priority,
``K`` a key ("=": none), ``I`` a task's id and ``U.O`` the user and the pool
instance that made the id up, its first 16 digits ("=.=": somebody's own)::

    P.task.T.now.L.K.I    to be run; of a schedule's runs ``I`` is its name
    P.task.T.later.L.K.I  to be run at a time
    P.schedule.T.N        a recurring one
    P.state.T.U.O.I       its last known state, the outcome at the end
    P.told.T.U.O.I        what was stored there, told by the server
    P.ask.T.V.U.O.I       a request to the workers: V is cancel or forget
    P.note.T.V.U.O.I      V is progress or checkpoint
    P.index.T.V.U.O.I     the few tasks in state V, for lists
    P.dead.T.I            dead letters
    P.blob.T.U.B.n        chunk n of a stored payload; U is whose it is: of arguments
                          who stored them, of all else the ``U`` of the task's id;
                          B is its number in hex. Instead of n ``head``: who refers
                          to it
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from genro_nats.codec.blob import BlobId

__all__ = [
    "NONE",
    "QUEUE_GROUP",
    "PoolSubjects",
    "TaskSubjects",
    "api_inbox",
    "bulk_inbox",
    "caller_inbox",
    "drain_inbox",
    "from_token",
    "is_caller",
    "is_inbox",
    "is_later",
    "is_made_up",
    "is_schedule",
    "owner_tokens",
    "pool_of_stream",
    "pool_subjects",
    "presence_ask",
    "presence_of",
    "pull_inbox",
    "token",
    "user_of",
    "worker_inbox",
]

QUEUE_GROUP: Final = "workers"


class PoolSubjects(NamedTuple):
    """Where a pool's messages go."""

    call: str
    control: str
    peers: str


def pool_subjects(prefix: str, subject: str) -> PoolSubjects:
    """The subjects of one pool."""
    return PoolSubjects(*(f"{prefix}.{room}.{subject}" for room in ("call", "control", "peers")))


def caller_inbox(prefix: str, caller: str) -> str:
    """Where one caller, ``U.C``, hears; append the call's id in hex, or ``*`` to subscribe."""
    return f"{prefix}.reply.{caller}."


def is_inbox(prefix: str, subject: str) -> bool:
    """May a message be answered there because it says so? Nowhere where an answer would be taken for a wish."""
    if subject.startswith(f"{prefix}."):
        return is_caller(prefix, subject)
    return bool(subject) and not subject.startswith("$")


def is_caller(prefix: str, subject: str) -> bool:
    """Is it where a caller hears?"""
    return subject.startswith(f"{prefix}.reply.")


def worker_inbox(prefix: str, worker: str) -> str:
    """Where one worker hears."""
    return f"{prefix}.worker.{worker}"


def drain_inbox(prefix: str, worker: str) -> str:
    """Where one worker is told to leave: beside its inbox, because callers may write to that."""
    return f"{prefix}.worker.{worker}.drain"


def presence_of(prefix: str, worker: str) -> str:
    """Where a worker's heartbeat is; ``*`` for that of all."""
    return f"{prefix}.presence.beat.{worker}"


def presence_ask(prefix: str) -> str:
    """Where all workers are asked to show themselves; each answers to the reply subject."""
    return f"{prefix}.presence.ask"


def bulk_inbox(prefix: str, peer: str) -> str:
    """Where one side, ``U.X``, hears of large payloads; append ``owner`` or a pull's id in hex, or ``*``."""
    return f"{prefix}.bulk.{peer}."


def pull_inbox(prefix: str, worker: str, consumer: str) -> str:
    """Where one worker hears what it pulls from a consumer; append a pull, or ``>`` to subscribe."""
    return f"{prefix}.pull.{worker}.{consumer}."


def api_inbox(prefix: str, who: str) -> str:
    """Where one caller or worker, ``U.C``, hears JetStream's answers."""
    return f"{prefix}.api.{who}."


def is_schedule(subject: str) -> bool:
    """Is it that of a recurring task? Prefixes may hold any words, so subjects are read from their ends."""
    return subject.split(".")[-3:-2] == ["schedule"]


def is_later(subject: str) -> bool:
    """Is it that of a task that waits for a time?"""
    return subject.split(".")[-4:-3] == ["later"]


_PLAIN: Final = re.compile(r"[A-Za-z0-9-]+")
_MADE_UP: Final = re.compile(r"[0-9a-f]{32}")
_ESCAPED: Final = re.compile(r"(?:=[0-9A-F]{2})+")
NONE: Final = "="  # in place of a token; no text becomes this
_NOBODY: Final = f"{NONE}.{NONE}"


def token(text: str) -> str:
    """Any text as one token of a subject, "." as "_", what is special as "=" and two hex digits per byte."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == ".":
        return "_"
    if _PLAIN.fullmatch(character):
        return character
    return "".join(f"={byte:02X}" for byte in character.encode())


def from_token(found: str) -> str:
    """The text of a token."""
    if _PLAIN.fullmatch(found):
        return found

    def plain(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("=", "")).decode(errors="replace")

    return _ESCAPED.sub(plain, found.replace("_", "."))


def pool_of_stream(prefix: str, stream: str) -> str | None:
    """The subject of the pool whose stream of tasks has this name; None if it is no such stream."""
    begin, end = f"{token(prefix)}-", "-tasks"
    if not (stream.startswith(begin) and stream.endswith(end)) or len(stream) <= len(begin) + len(end):
        return None
    return from_token(stream[len(begin) : -len(end)])


class TaskSubjects:
    """The subjects and streams of one pool's tasks."""

    def __init__(self, prefix: str, subject: str) -> None:
        self._prefix = prefix
        self._pool = pool = token(subject)
        name = f"{token(prefix)}-{pool}"
        self.tasks_stream: Final = f"{name}-tasks"
        self.states_stream: Final = f"{name}-states"
        self.dead_stream: Final = f"{name}-dead"
        self.blobs_stream: Final = f"{name}-blobs"
        self._task = f"{prefix}.task.{pool}"
        self._state = f"{prefix}.state.{pool}"
        self._ask = f"{prefix}.ask.{pool}"

    def of(self, room: str, *tokens: str) -> str:
        """``prefix.room.pool.tokens``; tokens are taken as they are, wildcards too."""
        return ".".join((self._prefix, room, self._pool, *tokens))

    def task(self, level: str, key: str | None, id: str, *, later: bool = False) -> str:
        """Where a task waits."""
        phase = "later" if later else "now"
        return f"{self._task}.{phase}.{level}.{NONE if key is None else token(key)}.{token(id)}"

    def state(self, id: str) -> str:
        """Where a task's state is stored."""
        return f"{self._state}.{_owner(id)}.{token(id)}"

    def about(self, room: str, what: str, id: str) -> str:
        """Where ``what`` is asked, noted or listed of one task: ``room`` is ask, note or index."""
        return f"{self._prefix}.{room}.{self._pool}.{what}.{_owner(id)}.{token(id)}"

    def blob(self, id: BlobId, part: int | str) -> str:
        """Where a part of a stored payload, ``U.B``, is: a chunk's number, or "head"."""
        return f"{self._prefix}.blob.{self._pool}.{id}.{part}"

    def stream_of(self, subject: str) -> str:
        """The stream that keeps what is stored on a subject of this pool."""
        room = subject.removeprefix(f"{self._prefix}.").partition(".")[0]
        if room in ("task", "schedule"):
            return self.tasks_stream
        return self.dead_stream if room == "dead" else self.states_stream

    def told(self, id: str) -> str:
        """Where the server tells a task's states."""
        return f"{self._prefix}.told.{self._pool}.{_owner(id)}.{token(id)}"


def is_made_up(id: str) -> bool:
    """Has a task's id the form of those that are made up here?"""
    return _MADE_UP.fullmatch(id) is not None


def user_of(id: str) -> str:
    """``U`` of who made a task's id up, "=" for somebody's own."""
    return id[:8] if is_made_up(id) else NONE


def owner_tokens(owner: str) -> str:
    """``U.O`` of the pool instance whose tasks' ids begin with these 16 digits."""
    return f"{owner[:8]}.{owner[8:16]}"


def _owner(id: str) -> str:
    return owner_tokens(id) if _MADE_UP.fullmatch(id) else _NOBODY
