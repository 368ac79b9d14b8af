"""A task's state as it is stored: facts as JSON, then the outcome's frame, if there is one.

::

    0   B   state: its place in ``TaskState``, from 0
    1   ?   is the outcome kept when it was read?
    2   I   length of the facts
    6       facts, JSON
            a REPLY or ERROR frame, or nothing
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import isfinite
from operator import attrgetter
from typing import Any, Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import DecodeError
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["Record", "Stored", "pack"]

_HEAD: Final = struct.Struct("!B?I")
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
_DEFAULTS: Final = (
    None,
    None,
    *_values(Record(TaskState.PENDING, 0.0))[2:],
)  # the first two are always stored
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "state": (str,),
    "created_at": (float, int),
    "attempts": (int,),
    "failures": (int,),
    "deaths": (int,),
    "misses": (int,),
    "pid": (int,),
    "started_at": (float, int),
    "finished_at": (float, int),
    "next_retry_at": (float, int),
    "alone": (bool,),
    "keep": (bool,),
}


def pack(record: Record, outcome: Buffer = b"") -> bytes:
    """The stored form."""
    known = zip(_NAMES, _values(record), _DEFAULTS, strict=True)
    facts = _encode({name: value for name, value, default in known if value != default}).encode()
    return b"".join((_HEAD.pack(_CODES[record.state], record.keep, len(facts)), facts, outcome))


class Stored:
    """A stored record and its sequence, which the next writer has to name. Facts are read when asked for.

    Raises:
        DecodeError: these bytes are no record; also from ``record``. Fields: ``seq``.
    """

    __slots__ = ("_data", "_end", "_record", "keep", "seq", "state")

    def __init__(self, data: Buffer, seq: int) -> None:
        try:
            code, self.keep, length = _HEAD.unpack_from(data)
            self.state = _STATES[code]
        except (struct.error, IndexError) as error:
            raise DecodeError(f"A task's state that can't be read: {error!r}", seq=seq) from error
        self._data = memoryview(data)
        self._end = _HEAD.size + length
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
            self._record = _unpack(self._data[_HEAD.size : self._end], self.seq, self.state, bool(self.keep))
        return self._record

    @property
    def outcome(self) -> memoryview:
        """The outcome's frame; empty: there is none."""
        return self._data[self._end :]


def _unpack(data: memoryview, seq: int, state: TaskState, keep: bool) -> Record:
    try:
        facts = json.loads(str(data, "utf-8"))
        known = {name: _checked(name, value) for name, value in facts.items() if name in _NAMES}
        return Record(**{**known, "state": state, "keep": keep})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError(f"A task's state that can't be read: {error!r}", seq=seq) from error


def _checked(name: str, value: Any) -> Any:
    if not isinstance(value, _TYPES.get(name, (str,))) or (type(value) is float and not isfinite(value)):
        raise TypeError(f"{name}={value!r}")
    return value
