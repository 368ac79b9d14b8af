"""Headers that make a stream publish a message later, once or again and again, and reading them back.

A message with them is kept on its own subject; when it is due, the server publishes its data
and its other headers on the target, a subject of the same stream. Publishing on its subject
again replaces it. To remove it without the right to purge, publish ``REMOVAL`` there, with a
time to live of a second: a plain message without it would leave the old one in the stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from genro_nats.transport.times import from_rfc3339, to_rfc3339

if TYPE_CHECKING:
    from genro_nats.transport.jetstream import JetStream

__all__ = [
    "REMOVAL",
    "Schedule",
    "at_headers",
    "cron_headers",
    "every_headers",
    "fired_by",
    "parse",
    "require_delays",
    "require_recurring",
    "target_of",
]

REMOVAL: Final[Mapping[str, str]] = {"Nats-Rollup": "sub"}

_WHEN: Final = "Nats-Schedule"
_TARGET: Final = "Nats-Schedule-Target"
_ZONE: Final = "Nats-Schedule-Time-Zone"
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|h|m|s)")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Schedule(NamedTuple):
    """One of ``due`` (seconds since the epoch), ``every`` (seconds) and ``cron`` (5 fields) is set.

    ``cron`` is as the server has it: its Sunday is 0, never 7.
    """

    target: str
    due: float = 0.0
    every: float = 0.0
    cron: str = ""
    timezone: str = ""


def require_delays(js: JetStream) -> None:
    """Raise ServerTooOldError for a server without ``at_headers``."""
    js.require("A delayed message", (2, 12))


def require_recurring(js: JetStream) -> None:
    """Raise ServerTooOldError for a server without ``every_headers`` and ``cron_headers``."""
    js.require("A recurring message", (2, 14))


def at_headers(due: float, target: str) -> dict[str, str]:
    """Once, at ``due`` (seconds since the epoch, the server's clock); at once if that is over.

    It moves in one step: whoever looks finds it either on its own subject or on the target.
    """
    return {_WHEN: f"@at {to_rfc3339(due)}", _TARGET: target}


def every_headers(seconds: float, target: str) -> dict[str, str]:
    """Again and again, from now on; servers take 1 second at least. Runs nobody takes pile up."""
    return {_WHEN: f"@every {round(seconds * 1000)}ms", _TARGET: target}


def cron_headers(cron: str, timezone: str, target: str) -> dict[str, str]:
    """By a cron expression of 5 fields, in a time zone such as "Europe/Rome"; UTC if empty.

    A time that never comes (30 February), or a zone it does not know, the server refuses when this is
    published: StreamError.
    """
    *fields, weekday = cron.split()
    days = ",".join(map(_without_seven, weekday.split(",")))
    found = {_WHEN: " ".join(["0", *fields, days]), _TARGET: target}
    return {**found, _ZONE: timezone} if timezone else found


def parse(headers: Mapping[str, str]) -> Schedule | None:
    """The schedule that a stored message is, or None. Raises ValueError for one that makes no sense."""
    when = headers.get(_WHEN)
    if when is None:
        return None
    target, (kind, _, rest) = headers.get(_TARGET, ""), when.partition(" ")
    if kind == "@at":
        return Schedule(target, due=from_rfc3339(rest))
    if kind == "@every":
        return Schedule(target, every=_seconds(rest))
    return Schedule(target, cron=rest, timezone=headers.get(_ZONE, ""))


def fired_by(headers: Mapping[str, str]) -> str:
    """The subject of the schedule that a message came from, or an empty text."""
    return headers.get("Nats-Scheduler", "")


def target_of(headers: Mapping[str, str]) -> str:
    """The subject that a stored schedule publishes on, or an empty text."""
    return headers.get(_TARGET, "")


def _seconds(text: str) -> float:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _without_seven(item: str) -> str:
    """A weekday, or a range of them, for servers, which refuse 7 and ranges that end with Sunday."""
    span, _, step = item.lower().partition("/")
    begin, dash, end = span.partition("-")
    if begin == "7":
        return "0"
    if not dash or _day(end) % 7 or span in ("0-0", "sun-sun"):
        return item
    if _day(begin) == 0 and not step:
        return "0-6"
    return ",".join(str(day % 7) for day in range(_day(begin), 8, int(step or 1)))


def _day(text: str) -> int:
    return _DAYS.index(text) if text in _DAYS else int(text)
