"""A task's state as it is stored: its facts, then the outcome's frame, if there is one.

Numbers are big-endian; a moment that never was is NaN, a missing pid 0::

    0   B     version of this layout: 1
    1   B     state: its place in ``TaskState``, from 0
    2   ?     is the outcome kept when it was read?
    3   ?     did it run alone in its child?
    4   5I    attempts, failures, deaths, misses, pid
    24  4d    created, started, finished, next retry: seconds since the epoch
    56  6H    lengths of the texts, in bytes
    68        texts, UTF-8: claim, worker, error, reason, task, function
              a REPLY or ERROR frame, or nothing
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import isinf, isnan, nan
from operator import attrgetter
from typing import Any, Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import DecodeError
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["Record", "Stored", "pack"]

_HEAD: Final = struct.Struct("!BB??5I4d6H")
_VERSION: Final = 1
_STATES: Final = tuple(TaskState)
_CODES: Final = {state: code for code, state in enumerate(_STATES)}
_SETTLED: Final = frozenset(state for state in _STATES if state.settled)


@dataclass(slots=True)
class Record:
    """What is stored of a task. Times are the server's, seconds since the epoch.

    ``attempts``: how often it was begun; ``failures``: how often it raised; ``deaths``: how often its
    child or worker died. ``claim``: who runs it; no two attempts have the same. ``alone``: it did not
    wait behind another call in its child, so a death there was its own. ``task``: its message's subject.
    ``misses``: how often a worker did not have its
    function. ``reason``: why it was given up. ``worker`` is its inbox-id, ``pid`` the worker's parent.
    """

    state: TaskState
    created_at: float
    attempts: int = 0
    failures: int = 0
    deaths: int = 0
    misses: int = 0
    claim: str = ""
    alone: bool = True
    worker: str = ""
    pid: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    next_retry_at: float | None = None
    error: str = ""
    reason: str = ""
    task: str = ""
    function: str = ""
    keep: bool = True

    def status(self, id: str) -> TaskStatus:
        """The same for users."""
        return TaskStatus(
            id,
            self.state,
            self.created_at,
            attempts=self.attempts,
            worker=self.worker,
            pid=self.pid,
            started_at=self.started_at,
            finished_at=self.finished_at,
            error=self.error,
            next_retry_at=self.next_retry_at,
        )

    def to(self, state: TaskState, **changed: Any) -> Record:
        """The record of a later state."""
        # dataclasses.replace takes several times as long.
        return Record(**{**dict(zip(_NAMES, _values(self), strict=True)), "state": state, **changed})


_NAMES: Final[tuple[str, ...]] = tuple(Record.__slots__)
_values: Final = attrgetter(*_NAMES)
_TEXTS: Final = ("claim", "worker", "error", "reason", "task", "function")
_texts: Final = attrgetter(*_TEXTS)
_LONGEST: Final = (1 << 16) - 1  # bytes of a text


def pack(record: Record, outcome: Buffer = b"") -> bytes:
    """The stored form."""
    texts = [text.encode("utf-8", "replace")[:_LONGEST] for text in _texts(record)]
    head = _HEAD.pack(
        _VERSION,
        _CODES[record.state],
        record.keep,
        record.alone,
        record.attempts,
        record.failures,
        record.deaths,
        record.misses,
        record.pid or 0,
        record.created_at,
        _moment(record.started_at),
        _moment(record.finished_at),
        _moment(record.next_retry_at),
        *map(len, texts),
    )
    return b"".join((head, *texts, outcome))


def _moment(seconds: float | None) -> float:
    return nan if seconds is None else seconds


class Stored:
    """A stored record and its sequence, which the next writer has to name. Facts are read when asked for.

    Raises:
        DecodeError: these bytes are no record; also from ``record``. Fields: ``seq``.
    """

    __slots__ = ("_data", "_end", "_head", "_record", "keep", "seq", "state")

    def __init__(self, data: Buffer, seq: int) -> None:
        try:
            self._head = _HEAD.unpack_from(data)
            version, code, self.keep = self._head[:3]
            if version != _VERSION:
                raise DecodeError(
                    f"A task's state of layout {version}; this side knows {_VERSION}. "
                    "Bring callers and workers to the same release of genro-nats.",
                    seq=seq,
                )
            self.state = _STATES[code]
        except (struct.error, IndexError) as error:
            raise DecodeError(f"A task's state that can't be read: {error!r}", seq=seq) from error
        self._data = memoryview(data)
        self._end = _HEAD.size + sum(self._head[-len(_TEXTS) :])
        if self._end > len(data):
            raise DecodeError("A task's state that is cut short.", seq=seq)
        self._record: Record | None = None
        self.seq = seq

    @property
    def settled(self) -> bool:
        """Is it final?"""
        return self.state in _SETTLED

    @property
    def record(self) -> Record:
        """The facts."""
        if self._record is None:
            self._record = self._read()
        return self._record

    def _read(self) -> Record:
        _, _, keep, alone, attempts, failures, deaths, misses, pid, created, *rest = self._head
        started, finished, retry, *lengths = rest
        if isnan(created) or any(map(isinf, (created, started, finished, retry))):
            raise DecodeError("A task's state with times that can't be.", seq=self.seq)
        at, texts = _HEAD.size, {}
        for name, length in zip(_TEXTS, lengths, strict=True):
            texts[name] = str(self._data[at : at + length], "utf-8", "replace")
            at += length
        return Record(
            self.state,
            created,
            attempts,
            failures,
            deaths,
            misses,
            alone=alone,
            pid=pid or None,
            started_at=_known(started),
            finished_at=_known(finished),
            next_retry_at=_known(retry),
            keep=keep,
            **texts,
        )

    @property
    def outcome(self) -> memoryview:
        """The outcome's frame; empty: there is none."""
        return self._data[self._end :]


def _known(moment: float) -> float | None:
    return None if isnan(moment) else moment
