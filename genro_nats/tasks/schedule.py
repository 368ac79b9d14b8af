"""When a recurring task runs: cron expressions and intervals, checked before they reach a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from genro_nats.errors import ConfigurationError
from genro_nats.tasks.options import MAX_ID

__all__ = ["Schedule", "ScheduleSpec", "check_name"]

_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES: Final = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "weekday": {name: number for number, name in enumerate(_DAYS)},
}


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When: ``cron`` (5 fields: minute hour day month weekday) in ``timezone``, or ``every`` seconds.

    Raises:
        ConfigurationError: neither or both, or one that makes no sense; the text names the field.
    """

    cron: str = ""
    timezone: str = ""
    every: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.cron) == bool(self.every):
            raise ConfigurationError("A schedule needs either cron= or every=.")
        if self.cron:
            _check_cron(self.cron)
            _check_zone(self.timezone)
        elif self.timezone:
            raise ConfigurationError("timezone= goes with cron= only.", option="timezone")
        elif not 1 <= self.every <= 366 * 86_400:
            raise ConfigurationError(f"every={self.every!r}: give seconds, 1 or more", option="every")

    def __str__(self) -> str:
        if self.every:
            return f"every {self.every:g} s"
        return f"{self.cron} ({self.timezone})" if self.timezone else f"{self.cron} (UTC)"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A stored schedule. ``function``: its stable name; ``created_at``: seconds since the epoch."""

    name: str
    spec: ScheduleSpec
    function: str
    created_at: float


def check_name(name: str) -> None:
    """Raise ConfigurationError for what is no name of a schedule."""
    if not isinstance(name, str) or not name or len(name.encode()) > MAX_ID:
        raise ConfigurationError(f"A schedule named {name!r}: give a text of 1 to {MAX_ID} bytes.")


def _check_zone(name: str) -> None:
    if not name:
        return
    try:
        ZoneInfo(name)
    except Exception:
        raise ConfigurationError(
            f"timezone={name!r} is not known here: give a name such as 'Europe/Rome'.", option="timezone"
        ) from None


def _check_cron(text: str) -> None:
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ConfigurationError(
            f"cron={text!r} has {len(parts)} fields: give 5, minute hour day month weekday.", option="cron"
        )
    for part, (name, low, high) in zip(parts, _FIELDS, strict=True):
        if not all(_is_range(item, name, low, high) for item in part.split(",")):
            raise ConfigurationError(
                f"cron={text!r}: {part!r} is no {name}; give {low} to {high}, ranges, lists, * or steps.",
                option="cron",
            )


def _is_range(item: str, name: str, low: int, high: int) -> bool:
    span, slash, step = item.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        return False
    if span == "*":
        return True
    begin, dash, end = span.partition("-")
    first, last = _number(begin, name), _number(end if dash else begin, name)
    return first is not None and last is not None and low <= first <= last <= high


def _number(text: str, name: str) -> int | None:
    return int(text) if text.isdigit() else _NAMES.get(name, {}).get(text.lower())
