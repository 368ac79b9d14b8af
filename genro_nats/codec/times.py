"""Dates and times as text and back, time zones by name where they have one."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from genro_nats.errors import CodecError

__all__ = ["datetime_parts", "time_parts", "to_datetime", "to_time"]

# A name goes into the path of a file: nothing in it may lead elsewhere.
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,40}(/[A-Za-z][A-Za-z0-9_+-]{0,40}){0,2}")


def datetime_parts(value: datetime) -> tuple[str, int, str | None]:
    """ISO text with the offset, fold, and the name of the zone; a zone of another sort travels as its offset."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return value.isoformat(), value.fold, zone


def to_datetime(text: str, fold: int, zone: str | None) -> datetime:
    """The moment again; a zone that is not known here is left as the offset it had."""
    found = datetime.fromisoformat(text)
    if zone is not None and _ZONE.fullmatch(zone):
        with contextlib.suppress(ZoneInfoNotFoundError, ValueError, OSError):
            found = found.replace(tzinfo=ZoneInfo(zone))
    return found.replace(fold=fold)


def time_parts(value: time) -> tuple[str, int]:
    """ISO text and fold."""
    if value.tzinfo is not None and value.utcoffset() is None:
        raise CodecError("A time of day in a time zone without a date has no offset: send a datetime.")
    return value.isoformat(), value.fold


def to_time(text: Any, fold: int) -> time:
    """The time of day again."""
    return time.fromisoformat(text).replace(fold=fold)
