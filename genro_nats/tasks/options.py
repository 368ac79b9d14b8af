"""The options of a task, checked when they are stated."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal, Self, TypedDict

from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError, TaskNotFoundError
from genro_nats.tasks.retry import RetryPolicy, type_names

__all__ = [
    "DEFAULT_OPTIONS",
    "DEFAULT_RESULT_TTL",
    "MAX_ID",
    "MAX_RUN_ID",
    "Priority",
    "TaskKeywords",
    "TaskOptions",
    "can_be_id",
    "require_id",
    "whole_limit",
]

DEFAULT_RESULT_TTL: Final = 86_400.0  # seconds
_LONGEST: Final = 100 * 365.25 * 86_400.0  # seconds: what servers can count
MAX_ID: Final = 128  # bytes of an id, a key or a schedule's name, as UTF-8
MAX_RUN_ID: Final = MAX_ID + 32  # of the id of a schedule's run: its name and a time

ExceptionTypes = tuple[type[BaseException] | str, ...]


class TaskKeywords(TypedDict, total=False):
    """The options of a task as keywords; ``TaskOptions`` says what they mean."""

    delay: float | None
    at: datetime | float | None
    priority: Literal["high", "normal", "low"] | Priority
    key: str | None
    id: str | None
    expires: float | None
    retries: int
    backoff: float
    backoff_factor: float
    max_backoff: float
    retry_on: type[BaseException] | str | Collection[type[BaseException] | str]
    give_up_on: type[BaseException] | str | Collection[type[BaseException] | str]
    result_ttl: float
    keep_result: bool
    by_value: bool


class Priority(StrEnum):
    """Which of the waiting tasks goes first; strict: a lower one waits for all higher ones."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How one task is kept, run and retried. Durations are seconds.

    ``delay``: run it that much later; ``at``: not before that moment (an aware datetime, or
    seconds since the epoch). ``priority``: high, normal or low.
    ``key``: while a task with this key is scheduled, queued or running, enqueueing another gives
    the existing one. ``id``: the caller's own id; enqueueing the same id again gives the same task.
    ``expires``: it fails unless it begins within that time from when it was due; on a NATS pool that
    is noticed when a worker comes to it.
    ``retries``: attempts after the first one that failed; ``backoff``, ``backoff_factor`` and
    ``max_backoff``: the wait before attempt n+1 is anything from 0 to
    ``backoff * backoff_factor ** (n - 1)``, at most ``max_backoff``.
    ``retry_on``, ``give_up_on``: exception classes, or their names ("module:qualname"), subclasses
    included, that are tried again (empty: all) and that are not.
    ``result_ttl``: how long the outcome is kept; ``keep_result``: False deletes it once it was read.
    ``by_value``: True is ``by="value"`` for a task: store the function itself with it.

    Raises:
        ConfigurationError: a value that makes no sense; the text names it.
    """

    delay: float | None = None
    at: datetime | float | None = None
    priority: Priority = Priority.NORMAL
    key: str | None = None
    id: str | None = None
    expires: float | None = None
    retries: int = 0
    backoff: float = 1.0
    backoff_factor: float = 2.0
    max_backoff: float = 600.0
    retry_on: ExceptionTypes = ()
    give_up_on: ExceptionTypes = ()
    result_ttl: float = DEFAULT_RESULT_TTL
    keep_result: bool = True
    by_value: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "priority", _priority(self.priority))
        for name in ("retry_on", "give_up_on"):
            object.__setattr__(self, name, _types(name, getattr(self, name)))
        for name in ("id", "key"):
            _check_word(name, getattr(self, name))
        for name, least in (("delay", 0.0), ("expires", 0.001), ("result_ttl", 1.0)):
            _check_seconds(name, getattr(self, name), least)
        _check_moment(self.at)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int):
            raise ConfigurationError(f"retries={self.retries!r}: give a whole number", option="retries")
        for name in ("backoff", "backoff_factor", "max_backoff"):
            if not _is_number(value := getattr(self, name)):
                raise ConfigurationError(f"{name}={value!r}: give a number", option=name)
        if self.delay is not None and self.at is not None:
            raise ConfigurationError("delay= and at= both say when: give one of them")
        _ = self.policy  # says what is wrong with the rest

    @property
    def policy(self) -> RetryPolicy:
        """How failures are met. Raises ConfigurationError."""
        return RetryPolicy(
            retries=self.retries,
            backoff=self.backoff,
            factor=self.backoff_factor,
            max_backoff=self.max_backoff,
            retry_on=tuple(map(_name, self.retry_on)),
            give_up_on=tuple(map(_name, self.give_up_on)),
        )

    @property
    def due_at(self) -> float | None:
        """``at`` in seconds since the epoch."""
        return self.at.timestamp() if isinstance(self.at, datetime) else self.at

    def with_stated(self, stated: dict[str, Any]) -> Self:
        """The same options, but for those stated. Raises ConfigurationError."""
        for name in stated:
            if name not in _NAMES:
                raise ConfigurationError(
                    f"Unknown option {name!r} of a task.{did_you_mean(name, _NAMES)} Options: timeout, "
                    f"on_progress, by, {', '.join(_NAMES)}.",
                    option=name,
                )
        return replace(self, **stated)


def whole_limit(limit: int) -> int:
    """How many may be listed. Raises ConfigurationError when it is no whole number from 0 on."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ConfigurationError(f"limit={limit!r}: give a whole number from 0 on", option="limit")
    return limit


_NAMES: Final = tuple(known.name for known in fields(TaskOptions))


def _priority(value: Any) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        raise ConfigurationError(f"priority={value!r}: give 'high', 'normal' or 'low'") from None


def _types(option: str, given: Any) -> ExceptionTypes:
    found = given if isinstance(given, list | tuple | set | frozenset) else (given,)
    for one in found:
        if isinstance(one, str) and ":" in one:
            continue
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise ConfigurationError(
                f"{option}={given!r}: give exception classes, or names such as 'builtins:ValueError'"
            )
    return tuple(found)


def _name(kind: type[BaseException] | str) -> str:
    return kind if isinstance(kind, str) else type_names(kind)[0]


def _check_word(option: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value or len(value.encode(errors="replace")) > MAX_ID:
        raise ConfigurationError(f"{option}={value!r}: give a text of 1 to {MAX_ID} bytes", option=option)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{option}={value!r} can't be written as UTF-8", option=option) from None


def can_be_id(value: object) -> bool:
    """Can a task, a letter or a schedule have this id or name? Subjects are made of it, so it must not be long."""
    try:
        return isinstance(value, str) and 0 < len(value.encode()) <= MAX_RUN_ID
    except UnicodeEncodeError:
        return False


def require_id(id: object, what: str) -> None:
    """Raises TaskNotFoundError for the id of a ``what`` that none can have."""
    if not can_be_id(id):
        raise TaskNotFoundError(
            f"There is no {what} {id!r:.100}: ids are texts of 1 to {MAX_RUN_ID} bytes.", task_id=id
        )


def _check_moment(value: Any) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"at={value!r} has no time zone: give one, such as tzinfo=UTC")
    elif value is not None:
        try:
            datetime.fromtimestamp(value if _is_number(value) else math.nan, UTC)
        except (ValueError, OverflowError, OSError):
            raise ConfigurationError(
                f"at={value!r}: give an aware datetime, or seconds since the epoch", option="at"
            ) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_seconds(option: str, value: Any, least: float) -> None:
    if value is None:
        return
    if not _is_number(value) or not least <= value <= _LONGEST:
        raise ConfigurationError(
            f"{option}={value!r}: give seconds, at least {least:g} and at most {_LONGEST:g} (100 years)",
            option=option,
        )


DEFAULT_OPTIONS: Final = TaskOptions()
