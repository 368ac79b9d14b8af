"""Schedules: what is accepted, and what the errors name."""

from __future__ import annotations

from typing import Any

import pytest

from genro_nats.errors import ConfigurationError
from genro_nats.tasks.schedule import ScheduleSpec, check_name


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "0 3 * * *",
        "*/5 0-23/2 1,15 1-12 0-7",
        "59 23 31 12 7",
        "0 0 * jan-MAR,dec sun",
        "0 0 * * Mon-Fri",
        "5/10 * * * *",
        "  0   3 * * *  ",
    ],
)
def test_cron_accepted(cron: str) -> None:
    assert ScheduleSpec(cron).cron == cron


@pytest.mark.parametrize(
    ("cron", "named"),
    [
        ("", "either"),
        ("* * * *", "4 fields"),
        ("0 0 3 * * *", "6 fields"),
        ("@daily", "1 fields"),
        ("60 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day"),
        ("* * 32 * *", "day"),
        ("* * * 13 *", "month"),
        ("* * * foo *", "month"),
        ("* * * * 8", "weekday"),
        ("* * * * jan", "weekday"),
        ("5-1 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("*/x * * * *", "minute"),
        ("*/ * * * *", "minute"),
        ("1- * * * *", "minute"),
        ("1.5 * * * *", "minute"),
        ("* * L * *", "day"),
        ("* * * * 5#2", "weekday"),
    ],
)
def test_cron_rejected(cron: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ScheduleSpec(cron)


@pytest.mark.parametrize("every", [1, 1.5, 86_400.0, 366 * 86_400])
def test_intervals_accepted(every: float) -> None:
    assert ScheduleSpec(every=every).every == every


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({"every": 0.5}, "every"),
        ({"every": -5}, "every"),
        ({"every": 1e9}, "every"),
        ({"every": float("nan")}, "every"),
        ({"every": 5, "cron": "* * * * *"}, "either"),
        ({"every": 5, "timezone": "Europe/Rome"}, "timezone"),
        ({"cron": "* * * * *", "timezone": "Mars/Base"}, "timezone='Mars/Base'"),
        ({"cron": "* * * * *", "timezone": "../etc"}, "timezone"),
        ({}, "either"),
    ],
)
def test_rejected(stated: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ScheduleSpec(**stated)


def test_how_it_reads() -> None:
    assert str(ScheduleSpec("0 3 * * *", "Europe/Rome")) == "0 3 * * * (Europe/Rome)"
    assert str(ScheduleSpec("0 3 * * *")) == "0 3 * * * (UTC)"
    assert str(ScheduleSpec(every=90)) == "every 90 s"


@pytest.mark.parametrize("name", ["", "n" * 129, "ü" * 65, 5, None])
def test_names_rejected(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        check_name(name)
