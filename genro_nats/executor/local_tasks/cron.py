"""When a schedule runs next."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from genro_nats.errors import ConfigurationError
from genro_nats.tasks.schedule import ScheduleSpec

__all__ = ["check", "next_run", "run_id"]


def check(spec: ScheduleSpec) -> None:
    """Can this process tell when it runs?

    Raises:
        ConfigurationError: it takes the extra "schedules", or there is no such time.
    """
    if spec.cron:
        _next_cron(spec, datetime.now(UTC).timestamp())


def next_run(spec: ScheduleSpec, created_at: float, after: float) -> float:
    """The first time later than ``after``; all times are seconds since the epoch."""
    if spec.cron:
        return _next_cron(spec, after)
    return created_at + spec.every * ((after - created_at) // spec.every + 1)


def run_id(name: str, due: float) -> str:
    """The id of the task that a schedule makes at that time."""
    return f"{name}.{datetime.fromtimestamp(due, UTC):%Y%m%dT%H%M%SZ}"


def _next_cron(spec: ScheduleSpec, after: float) -> float:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise ConfigurationError(
            'cron= on a pool of this process needs the extra "schedules": pip install "genro-nats[schedules]". '
            "every= needs none.",
            option="cron",
        ) from None
    zone = ZoneInfo(spec.timezone or "UTC")
    try:
        times = CronSim(spec.cron.upper(), datetime.fromtimestamp(after, zone))
        return float(next(times).timestamp())
    except (CronSimError, StopIteration) as error:
        raise ConfigurationError(
            f"cron={spec.cron!r} is never due: {error or 'not within 50 years'}.", option="cron"
        ) from None
