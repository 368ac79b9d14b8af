"""The options of a pool: rules, defaults, errors and secrets."""

from __future__ import annotations

import dataclasses
import math
import pickle
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats.config import KINDS, PoolOptions, describe_options, server_urls, usable_cpus
from genro_nats.errors import ConfigurationError

VAR: ContextVar[int] = ContextVar("VAR")
NAMES = [info.name for info in describe_options()]

ACCEPTED: list[tuple[str, Any, Any]] = [
    ("max_workers", None, None),
    ("max_workers", 1024, 1024),
    ("max_pending", 1, 1),
    ("overload", "fail", "fail"),
    ("timeout", "30s", 30.0),
    ("timeout", 2, 2.0),
    ("timeout", None, None),
    ("initializer", "myapp.tasks:load", "myapp.tasks:load"),
    ("initializer", print, print),
    ("initargs", [1, "a"], (1, "a")),
    ("carry", [VAR], (VAR,)),
    ("bypass", True, True),
    ("imports", "a, b.c", ("a", "b.c")),
    ("imports", ["a.b"], ("a.b",)),
    ("max_memory_per_child", "512MB", 512_000_000),
    ("max_memory_per_child", "1.5 GiB", 1_610_612_736),
    ("spares", 0, 0),
    ("cancel_grace", 0, 0.0),
    ("subject", "tasks.heavy", "tasks.heavy"),
    ("url", "embedded", ("embedded",)),
    ("url", "nats://a:4222, tls://u:p%2C%40@b", ("nats://a:4222", "tls://u:p%2C%40@b")),
    ("url", ["wss://h/path"], ("wss://h/path",)),
    ("url", "nats://[::1]:4222", ("nats://[::1]:4222",)),
    ("tls_ca", Path("ca.pem"), "ca.pem"),
    ("tls_ca", "~/ca.pem", str(Path.home() / "ca.pem")),
    ("tls_ca", "~nobody-of-that-name/ca.pem", "~nobody-of-that-name/ca.pem"),
    ("prefix", "acme.eu-1", "acme.eu-1"),
    ("disconnect_timeout", 0, 0.0),
]


def _each(option: str, *values: Any) -> list[tuple[str, Any]]:
    return [(option, value) for value in values]


REFUSED: list[tuple[str, Any]] = [
    *_each("max_workers", 0, -1, 1025, 2.0, True, "4", []),
    *_each("max_pending", 0, None, "x"),
    *_each("overload", "drop", None, 1, []),
    *_each("timeout", 0, -1, math.nan, math.inf, "soon", True, 10**400, "366d", []),
    *_each("initializer", "load", "a:b:c", "a b:c", ":f", 3),
    *_each("initargs", "abc", {"a": 1}, None),
    *_each("carry", VAR, ["VAR"], None),
    *_each("bypass", 1, "yes", None),
    *_each("imports", "a b", ["a", 3], [""], "a..b", None, {"a"}),
    *_each("events", "bus", 1, {}),
    *_each("max_memory_per_child", 512, "512 parrots", 2**63, -1, 1e9),
    *_each("subject", "", "a..b", ".a", "a b", "a.*", "a.>", "a\n", "é" * 200, 3, "\ud800"),
    *_each("prefix", "", "$JS", "_INBOX.a", "a.*", None),
    *_each(
        "url", "", "h:4222", "http://h", "nats://", "nats://h:x", "nats://h:99999", "nats://h:0", "nats://h,"
    ),
    *_each(
        "url",
        "embedded,nats://h",
        "nats://h,ws://h",
        ["nats://a,nats://b"],
        [],
        [3],
        3,
        "nats://a b",
        "nats://[",
    ),
    *_each("tls_ca", "", 3, b"x", "a\0b"),
    *_each("password", "", 5),
]


@pytest.mark.parametrize(("option", "value", "kept"), ACCEPTED)
def test_accepted_values(option: str, value: Any, kept: Any) -> None:
    assert getattr(PoolOptions.build("process", {option: value}), option) == kept


@pytest.mark.parametrize(("option", "value"), REFUSED)
def test_refused_values_name_option_pool_place_and_way_out(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolOptions.build("process", {option: value}, name="heavy", origins={option: "executors.toml"})
    text = str(caught.value)
    assert text.startswith(f"Option {option!r} of pool 'heavy' (executors.toml) is ")
    assert ": use " in text
    assert caught.value.option == option
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("option", "value"), REFUSED)
def test_no_way_of_making_options_skips_the_rules(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError):
        PoolOptions(**{option: value})
    with pytest.raises(ConfigurationError):
        dataclasses.replace(PoolOptions(), **{option: value})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_every_option(kind: str) -> None:
    every = {option: value for option, value, _ in ACCEPTED}
    built = PoolOptions.build(kind, every)
    assert (built.spares, built.subject, built.max_workers) == (0, "tasks.heavy", 1024)


def test_defaults_are_as_documented_and_pass_their_own_rules() -> None:
    options = PoolOptions()
    assert {info.name: info.default for info in describe_options()} == {
        field.name: getattr(options, field.name) for field in dataclasses.fields(options)
    }
    assert (options.max_pending, options.overload, options.timeout) == (10_000, "wait", None)
    assert (options.concurrency, options.prefix, options.disconnect_timeout) == (100, "genro", 30.0)
    assert options.workers == usable_cpus() >= 1
    assert PoolOptions(max_workers=3).workers == 3


def test_every_option_is_documented_for_kinds_that_exist() -> None:
    for info in describe_options():
        assert info.doc
        assert info.allowed
        assert set(info.kinds) <= set(KINDS)
    assert {info.name for info in describe_options() if info.secret} == {"password", "token"}


def test_options_are_frozen_and_take_no_others() -> None:
    options = PoolOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.threads = 3  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        options.thread = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wrong", "right"), [("max_worker", "max_workers"), ("Max-Pending", "max_pending"), ("urls", "url")]
)
def test_an_unknown_option_is_answered_with_the_nearest_and_the_list(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolOptions.build("thread", {wrong: "hunter2"}, name="heavy")
    text = str(caught.value)
    assert f"Unknown option {wrong!r} of pool 'heavy'. Did you mean {right!r}?" in text
    assert all(name in text for name in NAMES)
    assert "hunter2" not in text


def test_nats_takes_its_subject_from_the_pools_name() -> None:
    assert PoolOptions.build("nats", {}, name="heavy").subject == "tasks.heavy"
    assert PoolOptions.build("nats", {"subject": None}, name="heavy").subject == "tasks.heavy"
    assert PoolOptions.build("nats", {"subject": "a.b"}, name="heavy").subject == "a.b"
    assert PoolOptions.build("process", {}, name="heavy").subject is None


@pytest.mark.parametrize(
    ("name", "match"), [(None, "needs option 'subject'"), ("my pool", "pass option 'subject'")]
)
def test_nats_without_a_usable_subject_is_refused(name: str | None, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        PoolOptions.build("nats", {}, name=name)


@pytest.mark.parametrize(("option", "needed"), [("password", "user"), ("tls_key", "tls_cert")])
def test_options_that_go_together(option: str, needed: str) -> None:
    with pytest.raises(ConfigurationError, match=f"needs option '{needed}'"):
        PoolOptions.build("nats", {"subject": "a", option: "x"})
    assert PoolOptions.build("nats", {"subject": "a", option: "x", needed: "y"})
    assert PoolOptions.build("process", {option: "x"})


def test_repr_shows_what_was_set_but_no_secret() -> None:
    options = PoolOptions(
        user="ann", password="hunter2", token="hunter2", url=("nats://a:hunter2@h",), threads=4
    )
    assert "hunter2" not in repr(options)
    assert "threads=4" in repr(options)
    assert "user='ann'" in repr(options)
    assert repr(PoolOptions()) == "PoolOptions()"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("password", ["hunter2"]),
        ("token", {"t": "hunter2"}),
        ("url", "http://u:hunter2@h"),
        ("url", "nats://u:hun,hunter2@h"),
        ("url", "nats://u:hunter2@h:port"),
        ("url", ["u:hunter2@h"]),
        ("initargs", "hunter2"),
    ],
)
def test_errors_hold_no_secret(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolOptions.build("nats", {"subject": "a", option: value})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in str(caught.value.fields)


def test_options_survive_pickling() -> None:
    options = PoolOptions(threads=2, url=("nats://h",), initializer="a:b")
    assert pickle.loads(pickle.dumps(options)) == options


@given(
    st.sampled_from(NAMES),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=30)
        | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
        max_leaves=5,
    ),
)
def test_any_value_is_kept_for_good_or_refused_by_name(option: str, value: Any) -> None:
    try:
        options = PoolOptions.build("process", {option: value})
    except ConfigurationError as error:
        blamed = error.option
    else:
        blamed = option
        assert repr(dataclasses.replace(options)) == repr(options)
    assert blamed == option


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (None, {}, ("nats://127.0.0.1:4222",)),
        (None, {"NATS_URL": " "}, ("nats://127.0.0.1:4222",)),
        (None, {"NATS_URL": "nats://a, nats://b"}, ("nats://a", "nats://b")),
        (("nats://c",), {"NATS_URL": "nats://a"}, ("nats://c",)),
        ("embedded", {}, ("embedded",)),
    ],
)
def test_addresses_come_from_option_then_environment(
    url: tuple[str, ...] | str | None, environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert server_urls(url, environ) == expected


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("NATS_URL", lambda bad: server_urls(None, {"NATS_URL": bad})),
        ("url", lambda bad: server_urls(bad, {})),
    ],
)
def test_a_wrong_address_is_named_without_its_password(where: str, call: Callable[[str], Any]) -> None:
    password = "hunter" + "2"  # a traceback shows the lines of this file
    with pytest.raises(ConfigurationError, match=f"^{where} is .*@h'") as caught:
        call(f"http://u:{password}@h")
    assert password not in "".join(traceback.format_exception(caught.value))
