"""Durations, sizes, and the text of a value in a message."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats.config import masked_url, parse_duration, parse_size, shown
from genro_nats.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (2.5, 2.5),
        (0, 0.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("250ms", 0.25),
        (" 1.5 H ", 5400.0),
        ("2d", 172800.0),
        ("7", 7.0),
    ],
)
def test_durations(value: float | str, seconds: float) -> None:
    assert parse_duration(value) == seconds
    assert type(parse_duration(value)) is float


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s",
        "-1s",
        "1 parsec",
        "1e3",
        "inf",
        "1m30s",
        "٣s",
        -1,
        float("nan"),
        float("inf"),
        True,
        10**400,
        None,
    ],
)
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("512MB", 512_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("1kb", 1000),
        ("2TiB", 2 * 1024**4),
        ("9 B", 9),
    ],
)
def test_sizes(value: int | str, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "MB", "-1MB", "1G", "1 MiBs", "1,5GB", -1, 1.5, True, None])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a size"):
        parse_size(value)


@given(st.integers(0, 2**62), st.sampled_from(["B", "kB", "MiB", "TB", " GiB", ""]))
def test_a_size_grows_with_its_number(number: int, unit: str) -> None:
    one = parse_size(f"1{unit}")
    assert parse_size(f"{number}{unit}") == number * one


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_the_named_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ConfigurationError:
            continue


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("nats://h:4222", "nats://h:4222"),
        ("nats://u:hunter2@h:4222", "nats://***@h:4222"),
        ("nats://hunter2@h", "nats://***@h"),
        ("nats://u:hun,ter2@h", "nats://***@h"),
        ("nats://u:hun@ter2@h", "nats://***@h"),
        ("nats://u:hunter2@a,tls://u:hunter2@b", "nats://***@a,tls://***@b"),
        ("nats://u:hunter2@a, tls://b", "nats://***@a, tls://b"),
        ("u:hunter2@h", "***@h"),
        ("wss://h/?token=hunter2", "wss://h/?***"),
    ],
)
def test_addresses_are_shown_without_logins(url: str, masked: str) -> None:
    assert masked_url(url) == masked


_VAR: ContextVar[str] = ContextVar("locale", default="hunter2")


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("password", "hunter2", "***"),
        ("token", ["hunter2"], "***"),
        ("password", None, "None"),
        ("api_key", "hunter2", "***"),
        ("tls_key", "/etc/k.pem", "'/etc/k.pem'"),
        ("url", ("nats://u:hunter2@h",), "['nats://***@h']"),
        ("backend", {"dsn": "hunter2", "db": "redis://u:hunter2@h"}, "{'db': 'redis://***@h', 'dsn': ***}"),
        ("initargs", ("hunter2", 3), "(str, int)"),
        ("initargs", "hunter2", "a str"),
        ("carry", (_VAR,), "[<ContextVar locale>]"),
        ("initializer", partial(print, "hunter2"), "<partial>"),
        ("initializer", test_sizes, f"{__name__}:test_sizes"),
        ("max_workers", 4, "4"),
    ],
)
def test_values_are_shown_without_secrets(option: str, value: Any, text: str) -> None:
    assert shown(option, value).replace("'***'", "***") == text


def test_a_long_value_is_cut() -> None:
    assert len(shown("subject", "x" * 10_000)) < 200
