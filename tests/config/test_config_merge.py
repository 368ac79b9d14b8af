"""What a pool finally is, and when two wishes for one pool conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genro_nats.config import KINDS, ConfigSource, conflict, requested, resolve
from genro_nats.errors import ConfigurationError


@pytest.fixture
def source(tmp_path: Path) -> ConfigSource:
    path = tmp_path / "executors.toml"
    path.write_text(
        '[executors.moved]\nkind = "nats"\ntimeout = 5\n[executors.tuned]\nthreads = 2\n'
        '[executors.wrong]\nthreads = 0\n[executors.typo]\nkind = "nat"\n'
        '[executors.custom]\nkind = "lambda"\n'
    )
    return ConfigSource(path, {"GENRO_POOL_MOVED": '{"timeout": 7}'})


@pytest.mark.parametrize(
    ("name", "kind", "final"),
    [
        ("plain", None, "process"),
        ("plain", "local", "process"),
        ("plain", "thread", "thread"),
        ("moved", "thread", "nats"),
        ("moved", None, "nats"),
        ("tuned", None, "process"),
    ],
)
def test_the_kind(source: ConfigSource, name: str, kind: str | None, final: str) -> None:
    assert resolve(name, kind, {}, source).kind == final


def test_variable_over_file_over_code_over_default(source: ConfigSource) -> None:
    pool = resolve("moved", "thread", {"timeout": 1, "max_pending": 3}, source)
    assert pool.options is not None
    assert (pool.options.timeout, pool.options.max_pending, pool.options.threads) == (7.0, 3, 1)
    assert pool.options.subject == "tasks.moved"
    assert pool.requested == {"kind": "thread", "timeout": 1, "max_pending": 3}
    assert pool.origin.endswith("GENRO_POOL_MOVED")
    assert resolve("plain", None, {"threads": 3}, source).origin == "code"
    assert resolve("plain", None, {"threads": 3}, source).requested == {"threads": 3}


def test_a_wrong_value_is_blamed_on_the_place_it_came_from(source: ConfigSource) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'threads' of pool 'wrong' \(.*executors.toml, \[executors.wrong\]\) is 0"
    ):
        resolve("wrong", None, {}, source)
    with pytest.raises(ConfigurationError, match=r"'threads' of pool 'plain' is 0"):
        resolve("plain", None, {"threads": 0}, source)


def test_an_unknown_kind(source: ConfigSource) -> None:
    with pytest.raises(ValueError, match=r"^Unknown executor type: 'x'\. Available types: a, b, c\.$"):
        resolve("plain", "x", {}, source, kinds=["a", "b", "c"])
    with pytest.raises(ConfigurationError, match=r"Did you mean 'async-process'\?"):
        resolve("plain", "async_process", {}, source)
    with pytest.raises(
        ConfigurationError, match=r"type: 'nat'.*Did you mean 'nats'\? \(.*\[executors.typo\]\)"
    ):
        resolve("typo", "thread", {}, source)
    with pytest.raises(ConfigurationError, match="'tread'"):
        resolve("moved", "tread", {}, source)


def test_the_options_of_a_kind_that_is_not_ours_pass_as_they_are(source: ConfigSource) -> None:
    pool = resolve("custom", "thread", {"memory": "1G", "threads": 0}, source, kinds=[*KINDS, "lambda"])
    assert (pool.kind, pool.options, pool.merged) == ("lambda", None, {"memory": "1G", "threads": 0})
    replaced = resolve("plain", "process", {"memory": 1}, source, known=())
    assert (replaced.options, replaced.merged) == (None, {"memory": 1})


def test_a_pool_moved_from_a_custom_kind_to_ours_is_validated(source: ConfigSource) -> None:
    with pytest.raises(ConfigurationError, match="Unknown option 'memory'"):
        resolve("moved", "lambda", {"memory": 1}, source, kinds=[*KINDS, "lambda"])


def test_a_registered_kind_may_take_the_name_of_an_alias(source: ConfigSource) -> None:
    assert resolve("plain", "local", {"x": 1}, source, kinds=[*KINDS, "local"]).kind == "local"


def test_no_secret_shows_in_what_was_resolved(source: ConfigSource) -> None:
    options = {"user": "u", "password": "hunter2", "url": "nats://u:hunter2@h"}
    assert "hunter2" not in repr(resolve("plain", "nats", options, source))


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"threads": 2}, {}),
        ({"threads": 2, "timeout": 1}, {"threads": 2}),
        ({}, {"threads": 1}),
        ({}, {"kind": "process"}),
        ({"kind": "local"}, {"kind": "process"}),
        ({"timeout": "1m"}, {"timeout": 60}),
        ({"url": "nats://a,nats://b"}, {"url": ["nats://a", "nats://b"]}),
        ({"initargs": [1]}, {"initargs": (1,)}),
        ({"custom": 3}, {"custom": 3}),
    ],
)
def test_wishes_that_agree(first: dict[str, Any], again: dict[str, Any]) -> None:
    conflict("heavy", first, again)


class Vague:
    """Like an array: compares to something that is neither true nor false."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize(
    ("first", "again", "parts"),
    [
        ({"threads": 2}, {"threads": 4}, ["threads=2", "threads=4"]),
        ({}, {"threads": 4}, ["threads=1", "threads=4"]),
        ({}, {"kind": "nats"}, ["kind='process'", "kind='nats'"]),
        ({"timeout": 3}, {"timeout": None}, ["timeout=3", "timeout=None"]),
        ({"password": "hunter2"}, {"password": "hunter22"}, ["password=", "another one"]),
        ({"url": "nats://u:hunter2@a"}, {"url": "nats://u:hunter2@b"}, ["nats://***@a", "nats://***@b"]),
        ({"initargs": ("hunter2",)}, {"initargs": ("hunter22",)}, ["(str)", "another one"]),
        ({"initargs": (Vague(),)}, {"initargs": (Vague(),)}, ["(Vague)"]),
        ({}, {"max_worker": 4}, ["without max_worker", "max_worker=4", "Did you mean 'max_workers'?"]),
    ],
)
def test_wishes_that_differ_are_shown_both(
    first: dict[str, Any], again: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        conflict("heavy", first, again)
    text = str(caught.value)
    assert "'heavy'" in text
    assert all(part in text for part in parts), text
    assert "hunter2" not in text


def test_what_was_requested_has_the_kind_by_its_one_name() -> None:
    assert requested("local", {"threads": 2}) == {"kind": "process", "threads": 2}
    assert requested(None, {"threads": 2}) == {"threads": 2}
    with pytest.raises(ConfigurationError, match="Unknown executor type"):
        requested("x", {})
