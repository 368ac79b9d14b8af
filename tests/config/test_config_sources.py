"""Where configuration comes from: the file, the variables, and what is wrong with them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genro_nats.config import ConfigSource, bypass_from_env, pool_variable
from genro_nats.errors import ConfigurationError

TOML = """
[executors.heavy]
kind = "nats"
timeout = "30s"
max_pending = 5

[executors."never.asked"]
kind = "thread"
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "pools.toml"
    path.write_text(TOML)
    return path


def _message(source: ConfigSource, name: str = "heavy") -> str:
    with pytest.raises(ConfigurationError) as caught:
        source.for_pool(name)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    return str(caught.value)


def test_without_configuration_nothing_is_overridden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = ConfigSource(environ={}).for_pool("heavy")
    assert (said.kind, dict(said.options), said.origin) == (None, {}, "")


def test_the_file_of_the_working_directory(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.rename(toml.parent / "executors.toml")
    monkeypatch.chdir(toml.parent)
    source = ConfigSource(environ={})
    assert source.for_pool("heavy").kind == "nats"
    assert source.for_pool("heavy").origin == "executors.toml, [executors.heavy]"
    assert source.for_pool("other").origin == ""
    assert source.for_pool("never.asked").kind == "thread"


def test_the_file_that_the_environment_names(toml: Path) -> None:
    said = ConfigSource(environ={"GENRO_EXECUTORS": str(toml)}).for_pool("heavy")
    assert said.options == {"timeout": "30s", "max_pending": 5}


def test_the_variable_wins_over_the_file_option_by_option(toml: Path) -> None:
    environ = {"GENRO_POOL_HEAVY": '{"kind": "process", "max_pending": 9}'}
    said = ConfigSource(toml, environ).for_pool("heavy")
    assert (said.kind, said.options) == ("process", {"timeout": "30s", "max_pending": 9})
    assert said.origin == f"{toml}, [executors.heavy] and environment variable GENRO_POOL_HEAVY"
    assert said.origins["timeout"] == f"{toml}, [executors.heavy]"
    assert said.origins["max_pending"] == said.origins["kind"] == "environment variable GENRO_POOL_HEAVY"


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("nats", "nats", {}),
        (" async-process ", "async-process", {}),
        ('{"threads": 3}', None, {"threads": 3}),
        ("", None, {}),
        ("  ", None, {}),
        ("{}", None, {}),
    ],
)
def test_what_a_variable_may_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: str | None, options: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ConfigSource(environ={"GENRO_POOL_HEAVY": text}).for_pool("heavy")
    assert (said.kind, said.options) == (kind, options)


def test_the_file_is_read_once(toml: Path) -> None:
    source = ConfigSource(toml, {})
    source.for_pool("heavy")
    toml.unlink()
    assert source.for_pool("heavy").kind == "nats"


def test_the_real_environment_is_the_default(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRO_POOL_HEAVY", "thread")
    assert ConfigSource(toml).for_pool("heavy").kind == "thread"


@pytest.mark.parametrize(
    ("name", "variable"),
    [("heavy", "GENRO_POOL_HEAVY"), ("a-b.c d", "GENRO_POOL_A_B_C_D"), ("né2", "GENRO_POOL_N_2")],
)
def test_the_variable_of_a_pool(name: str, variable: str) -> None:
    assert pool_variable(name) == variable


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    for source in (ConfigSource(missing, {}), ConfigSource(environ={"GENRO_EXECUTORS": str(missing)})):
        assert str(missing) in _message(source)
    assert "GENRO_EXECUTORS" in _message(source)
    assert "can't be read" in _message(ConfigSource(tmp_path, {}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'[executors.heavy]\npassword = "hunter2\n', ["line 2"]),
        (b"[executors.heavy]\ntoken = hunter2\n", ["line 2"]),
        (b'[executors.heavy]\npassword = "hunter2"\npassword = "hunter2"\n', ["line 3"]),
        (b'[executors.heavy]\npassword = "hunter2\xff"', ["not UTF-8"]),
        (
            b'[executor.heavy]\npassword = "hunter2"',
            ["unknown table [executor]", "Did you mean 'executors'?"],
        ),
        (b'password = "hunter2"\n', ["unknown table [password]"]),
        (b'executors = "hunter2"', ["'executors' is not a table"]),
        (b'[executors]\nheavy = "hunter2"', ["'executors.heavy' is not a table"]),
        (b"[executors.heavy]\nkind = 3", ["[executors.heavy]: 'kind' is not text"]),
        (b"a = " + b"[" * 100_000, ["not valid TOML"]),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: bytes, expected: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    message = _message(ConfigSource(path, {}))
    assert message.startswith(str(path))
    assert all(part in message for part in expected), message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password": "hunter2"', "line 1, column"),
        ('{"password": "hunter2"} hunter2', "Extra data"),
        ("nats hunter2", "neither a kind of executor nor a JSON object"),
        ('["hunter2"]', "JSON list"),
        ("7", "JSON int"),
        ('{"token": "hunter2", "token": 1}', "'token' appears twice"),
        ('{"kind": ["hunter2"]}', "'kind' is not text"),
        ('{"kind": ""}', "'kind' is not text"),
        ("[" * 100_000, "neither"),
        ("1" * 5000, "neither"),
    ],
)
def test_what_is_wrong_with_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = _message(ConfigSource(environ={"GENRO_POOL_HEAVY": text}))
    assert message.lower().startswith("environment variable genro_pool_heavy")
    assert expected in message


@given(st.text(max_size=60))
def test_any_variable_is_understood_or_refused_by_name(text: str) -> None:
    source = ConfigSource(environ={"GENRO_POOL_HEAVY": text})
    try:
        said = source.for_pool("heavy")
    except ConfigurationError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert said.kind is None or said.kind == text.strip()
    assert not refusal or "GENRO_POOL_HEAVY" in refusal


@pytest.mark.parametrize(
    ("text", "bypass"),
    [(None, False), ("", False), ("0", False), ("no", False), ("1", True), (" True ", True), ("on", True)],
)
def test_bypass(text: str | None, bypass: bool) -> None:
    assert bypass_from_env({} if text is None else {"GENRO_EXECUTOR_BYPASS": text}) is bypass


def test_bypass_that_is_neither_yes_nor_no() -> None:
    with pytest.raises(ConfigurationError, match="GENRO_EXECUTOR_BYPASS is 'maybe': use 1 or 0"):
        bypass_from_env({"GENRO_EXECUTOR_BYPASS": "maybe"})
