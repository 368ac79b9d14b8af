"""What is typed wrong is named, and what is right is explained."""

from __future__ import annotations

import pytest

from genro_nats.cli.main import main
from genro_nats.errors import ConfigurationError
from tests.cli.conftest import finished


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("wroker", "Did you mean 'worker'?"),
        ("--verison", "Did you mean '--version'?"),
        ("worker --subject a --proceses 2", "Did you mean '--processes'?"),
        ("server --prot 1", "Did you mean '--port'?"),
        ("worker --subject a --password x", "Did you mean '--password-file'?"),
        ("worker --subject a --processes 0", "(--processes) is 0"),
        ("worker --subject a --drain-timeout soon", "'soon' is not a duration"),
        ("worker --subject a.*", "subject"),
        ("worker", "give --subject"),
        ("worker --subject a --url nats://me:hush@host", "--url holds a login"),
        ("worker --config /no/such.toml", "can't be read"),
        ("worker --subject a --init nothing", "package.module:function"),
        ("demo --processes 0", "use 1 to"),
        ("worker --subject a --storage disk", "choose from"),
        ("worker --subject a --replicas 9", "(--replicas) is 9"),
        ("tasks", "give --subject"),
        ("tasks --subject a --state done", "invalid choice: 'done'"),
        ("tasks --subject a --limit 0", "--limit is 0"),
        ("task --subject a", "ID"),
        ("task x --subject a --watch --result", "not allowed with"),
        ("cancel x --subject a --timeout soon", "'soon' is not a duration"),
        ("dead drop --subject a", "`dead drop ID`"),
        ("dead list x --subject a", "`dead` alone to list"),
        ("schedules remove --subject a", "`schedules remove NAME`"),
        ("drain", "Give a worker's id, or --host HOST, or --all"),
        ("drain x --all", "Give a worker's id, or --host HOST, or --all"),
        ("top --interval 0.01", "--interval is 0.01 s"),
        ("workers --wait soon", "'soon' is not a duration"),
        ("schedules --subject a --url nats://me:hush@host", "--url holds a login"),
    ],
)
def test_bad_usage_is_one_line_with_a_way_out(
    line: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("genro-nats: ")
    assert hint in shown.err
    assert shown.err.count("\n") == 1
    assert "hush" not in shown.err


_COMMANDS = "worker tasks task cancel retry dead schedules workers pools top drain server demo"


@pytest.mark.parametrize("line", ["--help", "", *(f"{command} --help" for command in _COMMANDS.split())])
def test_help_has_examples(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    assert "examples:\n  genro-nats" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("genro-nats ")


def test_debug_shows_the_traceback() -> None:
    run = finished("worker", GENRO_NATS_DEBUG="1")
    assert run.returncode == 2
    assert "Traceback" in run.stderr
    assert ConfigurationError.__name__ in run.stderr


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("genro_nats.cli.server.run", interrupted)
    assert main(["server"]) == 130
