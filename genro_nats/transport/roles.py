"""What each role may do on the server: every subject that each side uses, and no other.

A caller may call and enqueue, and read what became of its own tasks; a worker serves pools; a
manager cancels, drains, replays and looks after streams (a replay is a new task, so it may run code
where callers may); an observer looks on. Permissions name whole tokens of subjects, so they are as
narrow as the subjects are: callers of one pool are kept apart by the token of their key
(``transport/identity.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from genro_nats.transport.jetstream import API
from genro_nats.transport.subjects import (
    NONE,
    QUEUE_GROUP,
    TaskSubjects,
    drain_inbox,
    pool_subjects,
    presence_ask,
    presence_of,
)

__all__ = ["Permissions", "Role", "permissions"]

_EVENTS: Final = "$JS.EVENT.ADVISORY."
_USER_INFO: Final = "$SYS.REQ.USER.INFO"  # the server's time, and what this user is; of nobody else
_STREAMS: Final = ("tasks", "states", "blobs", "dead")
_NOBODYS: Final = f"{NONE}.{NONE}"  # of tasks with ids of somebody's own, and of schedules' runs


class Role(StrEnum):
    """What a user of the server is to genro-nats."""

    CALLER = "caller"
    WORKER = "worker"
    MANAGER = "manager"
    OBSERVER = "observer"


class Permissions(NamedTuple):
    """What is allowed; everything else is not. ``answers``: may it answer what it is asked, once each?"""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


class _Pool:
    """The subjects of one pool, or of all pools of a prefix (``subject`` None)."""

    def __init__(self, prefix: str, subject: str | None) -> None:
        self.bound = subject is not None
        self._prefix = prefix
        self._tasks = None if subject is None else TaskSubjects(prefix, subject)
        named = pool_subjects(prefix, ">" if subject is None else subject)
        self.call, self.control = named.call, named.control
        peers = f"{prefix}.peers"
        self.peers = (f"{peers}.>",) if subject is None else (f"{peers}.{subject}", f"{peers}.{subject}.>")

    def of(self, room: str, *tokens: str) -> str:
        """A subject of its tasks."""
        if self._tasks is None:
            return ".".join((self._prefix, room, "*", *tokens))
        return self._tasks.of(room, *tokens)

    def stream(self, name: str) -> str:
        """The name of one of its streams; of all pools nothing narrower than all streams can be named."""
        return "*" if self._tasks is None else f"{self._tasks.tasks_stream.removesuffix('tasks')}{name}"

    def api(self, calls: Iterable[str], names: Iterable[str] = _STREAMS, rest: str = "") -> list[str]:
        """JetStream requests about its streams."""
        return [f"{API}{call}.{self.stream(name)}{rest}" for call in calls for name in names]

    def read(self, name: str, *subjects: str) -> list[str]:
        """Reading the last message on these subjects of a stream."""
        return [f"{API}DIRECT.GET.{self.stream(name)}.{subject}" for subject in subjects]


def permissions(
    role: Role, prefix: str, subjects: Sequence[str] = (), *, user: str, workers: Sequence[str] = ()
) -> Permissions:
    """The narrowest permissions with which a role works.

    ``subjects``: of the pools it is bound to; none: all pools of the prefix. ``user``: the token
    of its key (``identity_of``), ``workers``: those of the workers that a caller sends large
    arguments to and pulls large results from.
    """
    pools = [_Pool(prefix, subject) for subject in subjects or (None,)]
    make = {
        Role.CALLER: _caller,
        Role.WORKER: _worker,
        Role.MANAGER: _manager,
        Role.OBSERVER: _observer,
    }[role]
    found = [make(pool, prefix, user, workers) for pool in pools]
    return Permissions(
        _unique(subject for one in found for subject in one.publish),
        _unique(subject for one in found for subject in one.subscribe),
        any(one.answers for one in found),
    )


def _caller(pool: _Pool, prefix: str, user: str, workers: Sequence[str]) -> Permissions:
    mine = (f"{user}.*.*", f"{_NOBODYS}.*")
    publish = [
        pool.call,
        pool.control,  # cancels and questions about calls, whose ids nobody can guess
        f"{prefix}.worker.*",
        *(f"{prefix}.bulk.{worker}.*.*" for worker in workers),
        pool.of("task", ">"),
        pool.of("schedule", "*"),
        pool.of("blob", user, "*", "*"),
        *(pool.of("ask", "*", id) for id in mine),
        *pool.api(
            ["STREAM.INFO"], ["tasks"]
        ),  # it lists subjects: of tasks only, which are no secret in a pool
        *pool.api(["CONSUMER.INFO"], ["tasks"], ".*"),
        *pool.read("tasks", pool.of("task", ">"), pool.of("schedule", "*")),
        *pool.read("states", *(pool.of("state", id) for id in mine)),
        *pool.read("states", *(pool.of("note", "*", id) for id in mine)),
        *pool.read("blobs", *(pool.of("blob", whose, "*", "*") for whose in (user, NONE))),
        _USER_INFO,
    ]
    if pool.bound:  # for all pools this would be reading all of all streams
        publish += pool.api(["DIRECT.GET"], ["tasks"])
    subscribe = [
        *_inboxes(prefix, user),
        *(pool.of("told", id) for id in mine),
        *(pool.of("note", "progress", id) for id in mine),
        f"{_EVENTS}STREAM.LEADER_ELECTED.{pool.stream('states')}",
    ]
    return Permissions(tuple(publish), tuple(subscribe))


def _worker(pool: _Pool, prefix: str, user: str, workers: Sequence[str]) -> Permissions:
    acks = ("$JS.ACK.", "$JS.ACK.*.*.")  # without and with domain and account
    publish = [
        f"{prefix}.reply.*.*.*",
        f"{prefix}.bulk.*.*.*",
        presence_of(prefix, "*"),
        *pool.peers,
        pool.of("state", "*", "*", "*"),
        pool.of("note", "*", "*", "*", "*"),
        pool.of("index", "*", "*", "*", "*"),
        pool.of("blob", "*", "*", "*"),
        pool.of("dead", "*"),
        f"{API}INFO",
        *pool.api(["STREAM.INFO", "STREAM.CREATE", "STREAM.PURGE"]),
        *pool.api(["STREAM.MSG.DELETE"], ["tasks"]),
        *pool.api(["CONSUMER.INFO", "CONSUMER.CREATE", "CONSUMER.MSG.NEXT"], ["tasks"], ".*"),
        *_reading(pool),
        *(f"{ack}{pool.stream('tasks')}.>" for ack in acks),
        _USER_INFO,
    ]
    subscribe = [
        *_inboxes(prefix, user)[1:],  # it calls nobody
        f"{pool.call} {QUEUE_GROUP}",
        pool.control,
        *pool.peers,
        f"{prefix}.worker.*",
        drain_inbox(prefix, "*"),
        presence_ask(prefix),
        f"{prefix}.pull.*.*.>",
        pool.of("ask", ">"),
        "$SRV.>",
    ]
    return Permissions(tuple(publish), tuple(subscribe), answers=True)


def _manager(pool: _Pool, prefix: str, user: str, workers: Sequence[str]) -> Permissions:
    looking = _observer(pool, prefix, user, workers)
    publish = [
        *looking.publish,
        drain_inbox(prefix, "*"),
        pool.of("task", "now", "*", "*", "*"),  # a letter that is replayed
        pool.of("blob", "*", "*", "head"),  # and who its arguments belong to from then on
        pool.of("ask", ">"),
        *pool.api(["STREAM.CREATE", "STREAM.UPDATE", "STREAM.PURGE", "STREAM.MSG.DELETE"]),
        *pool.api(["CONSUMER.CREATE"], ["tasks"], ".*"),
    ]
    return Permissions(tuple(publish), looking.subscribe)


def _observer(pool: _Pool, prefix: str, user: str, workers: Sequence[str]) -> Permissions:
    publish = [
        presence_ask(prefix),
        "$SRV.>",
        f"{API}INFO",
        f"{API}STREAM.NAMES",
        f"{API}STREAM.LIST",
        *pool.api(["STREAM.INFO", "CONSUMER.NAMES", "CONSUMER.LIST"]),
        *pool.api(["CONSUMER.INFO"], rest=".*"),
        *_reading(pool),
        _USER_INFO,
    ]
    subscribe = [
        *_inboxes(prefix, user),
        presence_of(prefix, "*"),
        pool.of("told", ">"),
        pool.of("note", "progress", ">"),
        f"{_EVENTS}>",
    ]
    return Permissions(tuple(publish), tuple(subscribe))


def _inboxes(prefix: str, user: str) -> list[str]:
    return [f"{prefix}.{room}.{user}.*.*" for room in ("reply", "api", "bulk")]


def _reading(pool: _Pool) -> list[str]:
    """All that is stored."""
    return [*pool.api(["DIRECT.GET"]), *pool.api(["DIRECT.GET"], rest=".>")]


def _unique(subjects: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subjects))
