"""When schedules of local pools run."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from genro_nats import ConfigurationError, ScheduleSpec
from genro_nats.executor.local_tasks.cron import check, next_run, run_id


def _at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("cron", "zone", "after", "due"),
    [
        ("0 3 * * *", "Europe/Rome", "2026-05-01T02:59", "2026-05-01T03:00"),
        ("0 3 * * *", "Europe/Rome", "2026-05-01T03:00", "2026-05-02T03:00"),
        ("*/15 * * * *", "", "2026-05-01T10:16", "2026-05-01T10:30"),
        ("0 9 * * mon-fri", "", "2026-05-01T09:00", "2026-05-04T09:00"),
        ("0 0 1 jan *", "", "2026-05-01T00:00", "2027-01-01T00:00"),
        ("30 12 * * 7", "Asia/Tokyo", "2026-05-01T00:00", "2026-05-03T12:30"),
        ("0 0 29 2 *", "", "2026-05-01T00:00", "2028-02-29T00:00"),
        # In Rome there is no 02:30 on 2026-03-29, and there are two on 2026-10-25.
        ("30 2 * * *", "Europe/Rome", "2026-03-28T02:30", "2026-03-29T03:00"),
        ("30 2 * * *", "Europe/Rome", "2026-10-24T12:00", "2026-10-25T02:30"),
    ],
)
def test_cron(cron: str, zone: str, after: str, due: str) -> None:
    zone_name = zone or "UTC"
    spec = ScheduleSpec(cron, zone)
    assert next_run(spec, 0.0, _at(after, zone_name)) == _at(due, zone_name)


def test_an_interval_keeps_its_step() -> None:
    spec = ScheduleSpec(every=10)
    assert next_run(spec, 100.0, 100.0) == 110.0
    assert next_run(spec, 100.0, 110.0) == 120.0
    assert next_run(spec, 100.0, 134.9) == 140.0  # missed ones are left out


def test_what_is_never_due() -> None:
    with pytest.raises(ConfigurationError, match="never due"):
        check(ScheduleSpec("0 0 31 2 *"))


def test_ids_of_runs() -> None:
    assert run_id("nightly", _at("2026-12-31T03:00", "UTC")) == "nightly.20261231T030000Z"
