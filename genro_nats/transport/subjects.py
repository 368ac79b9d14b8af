"""The names of subjects and queue groups, all of them.

Identity on the wire is prefix plus subject. ``P`` is the prefix, ``S`` the
pool's subject::

    P.call.S              calls; workers share them in the queue group "workers"
    P.control.S           to all workers of a pool: cancels, questions
    P.worker.W            to one worker: cancels, credits, acknowledgements
    P.reply.C.*           to one caller: replies, items, beats; the last token
                          is the call's id, so that the server's own "no
                          responders" names its call
    P.bulk.X.*            to one owner or puller of large payloads: pulls to
                          ``owner``, chunks to the pull's id
    P.pull.W.N.>          to one puller of worker W: tasks and the server's words
                          about its pulls; N is the consumer's name
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "QUEUE_GROUP",
    "PoolSubjects",
    "bulk_inbox",
    "caller_inbox",
    "pool_subjects",
    "pull_inbox",
    "worker_inbox",
]

QUEUE_GROUP: Final = "workers"


class PoolSubjects(NamedTuple):
    """Where a pool's messages go."""

    call: str
    control: str


def pool_subjects(prefix: str, subject: str) -> PoolSubjects:
    """The subjects of one pool."""
    return PoolSubjects(f"{prefix}.call.{subject}", f"{prefix}.control.{subject}")


def caller_inbox(prefix: str, caller: str) -> str:
    """Where one caller hears; append the call's id in hex, or ``*`` to subscribe."""
    return f"{prefix}.reply.{caller}."


def worker_inbox(prefix: str, worker: str) -> str:
    """Where one worker hears."""
    return f"{prefix}.worker.{worker}"


def bulk_inbox(prefix: str, peer: str) -> str:
    """Where one side hears of large payloads; append ``owner`` or a pull's id in hex, or ``*`` to subscribe."""
    return f"{prefix}.bulk.{peer}."


def pull_inbox(prefix: str, worker: str, consumer: str) -> str:
    """Where one worker hears what it pulls from a consumer; append a pull, or ``>`` to subscribe."""
    return f"{prefix}.pull.{worker}.{consumer}."
