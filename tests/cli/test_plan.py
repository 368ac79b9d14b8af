"""From the command line and the file to pools and a connection."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from genro_nats.cli.arguments import CommandParser
from genro_nats.cli.settings import POOL, WORKER
from genro_nats.cli.worker import add_arguments
from genro_nats.cli.worker_plan import WorkerPlan, worker_plan
from genro_nats.config import describe_options
from genro_nats.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
FILE = """
[worker]
url = "nats://a.example:4222"
drain_timeout = "5s"
tls_ca = "ca.pem"
[pools.heavy]
processes = 3
imports = ["json"]
max_memory_per_child = "512MB"
lease = "15s"
replicas = 3
[pools.io]
subject = "tasks.files"
threads = 8
async = false
"""


def arguments(*line: str) -> argparse.Namespace:
    parser = CommandParser(prog="genro-nats worker")
    add_arguments(parser)
    found = parser.parse_args(list(line))
    assert isinstance(found, argparse.Namespace)
    return found


def plan(*line: str, **environ: str) -> WorkerPlan:
    return worker_plan(arguments(*line), environ)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "worker.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


def test_a_file_with_several_pools(written: Callable[[str], str], tmp_path: Path) -> None:
    made = plan("--config", written(FILE))
    heavy, io = (pool.options for pool in made.pools)
    assert (heavy.subject, heavy.max_workers, heavy.imports) == ("tasks.heavy", 3, ("json",))
    assert heavy.max_memory_per_child == 512_000_000
    assert (heavy.lease, heavy.replicas, heavy.storage) == (15, 3, "file")
    assert (io.subject, io.threads) == ("tasks.files", 8)
    assert made.connection.url == heavy.url == ("nats://a.example:4222",)
    assert made.connection.tls_ca == str(tmp_path / "ca.pem")
    assert made.drain_timeout == 5


def test_the_command_line_wins_over_the_file(written: Callable[[str], str]) -> None:
    made = plan("--config", written(FILE), "--processes", "7", "--url", "nats://b", "--drain-timeout", "1m")
    assert [pool.options.max_workers for pool in made.pools] == [7, 7]
    more = plan("--config", written(FILE), "--lease", "1m", "--replicas", "1", "--storage", "memory")
    assert [(pool.options.lease, pool.options.storage) for pool in more.pools] == [(60, "memory")] * 2
    assert made.connection.url == ("nats://b",)
    assert made.drain_timeout == 60


def test_subjects_choose_among_the_pools_of_the_file(written: Callable[[str], str]) -> None:
    made = plan("--config", written(FILE), "--subject", "tasks.files", "--subject", "tasks.new")
    assert [(pool.options.subject, pool.options.threads) for pool in made.pools] == [
        ("tasks.files", 8),
        ("tasks.new", 1),
    ]


def test_async_children() -> None:
    assert [pool.kind for pool in plan("--subject", "a", "--async").pools] == ["async-process"]
    assert [pool.kind for pool in plan("--subject", "a").pools] == ["process"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[workers]\n", "Did you mean 'worker'?"),
        ("[worker]\nurll = 'x'\n[pools.a]\n", "Did you mean 'url'?"),
        ("[worker]\npassword = 'x'\n[pools.a]\n", "Did you mean 'password_file'?"),
        ("[pools.a]\nproceses = 2\n", "Did you mean 'processes'?"),
        ("[pools.a]\nprocesses = 'two'\n", "is 'two'"),
        ("[pools.a]\nasync = 'yes'\n", "write true or false"),
        ("[pools.a]\nprocesses = 1\nmax_workers = 2\n", "mean the same"),
        ("[pools.a]\n[pools.b]\nsubject = 'tasks.a'\n", "the same subject"),
        ("[pools]\na = 1\n", "not a table"),
        ("[worker]\nlog_level = 'loud'\n[pools.a]\n", "log_level"),
        ("[worker]\nurl = 5\n[pools.a]\n", "url"),
        ("[worker]\nurl = 'embedded'\n", "No pool"),
        ("[worker\n", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file_are_named(text: str, hint: str, written: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan("--config", written(text))
    assert hint in str(caught.value)


def test_secrets_come_from_variables_and_files_and_stay_out_of_sight(tmp_path: Path) -> None:
    made = plan("--subject", "a", "--user", "me", GENRO_NATS_PASSWORD="hush")
    assert made.connection.password == made.pools[0].options.password == "hush"
    assert "hush" not in repr(made)
    secret = tmp_path / "token"
    secret.write_text("tok\n", "utf-8")
    assert plan("--subject", "a", "--token-file", str(secret)).connection.token == "tok"
    with pytest.raises(ConfigurationError, match="needs --user"):
        plan("--subject", "a", GENRO_NATS_PASSWORD="hush")


def test_the_sample_file_is_right() -> None:
    made = plan("--config", str(ROOT / "workers" / "worker.toml"))
    assert [pool.options.subject for pool in made.pools] == ["tasks.heavy", "tasks.io"]
    assert made.path == (str(ROOT / "workers"),)


# What a worker has no use for: what callers, local pools or the whole registry heed.
OF_CALLERS = """
    max_pending overload timeout initargs carry bypass by codec events max_queued workers_timeout compression
    disconnect_timeout password token
"""


def test_a_worker_can_be_told_whatever_it_heeds() -> None:
    known = {setting.option for setting in (*POOL, *WORKER)} - {""}
    rest = set(OF_CALLERS.split())
    assert known | rest == {option.name for option in describe_options()}
    assert not known & rest


def test_limits_and_times(written: Callable[[str], str]) -> None:
    line = (
        "--subject a --max-backlog 7 --max-backlog-size 2MB --inline-limit 3MB --max-payload-size 4MB "
        "--orphan-ttl 2h --function-cache 5MB"
    )
    text = """function_cache = "5MB"
[pools.a]
max_backlog = 7
max_backlog_size = "2MB"
inline_limit = "3MB"
max_payload_size = "4MB"
orphan_ttl = "2h"
"""
    for made in (plan(*line.split()), plan("--config", written(f"[worker]\n{text}"))):
        options = made.pools[0].options
        assert (options.max_backlog, options.max_backlog_size) == (7, 2_000_000)
        assert (options.inline_limit, options.max_payload_size) == (3_000_000, 4_000_000)
        assert options.orphan_ttl == 7200
        assert options.function_cache == made.connection.function_cache == 5_000_000


def test_registered_functions_only(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(
        '[pools.heavy]\nimports = ["shop"]\nonly_registered = true\nallow = ["shop:total", "jobs:*"]\n'
    )
    for found in (
        plan("--config", str(file)),
        plan("--subject", "heavy", "--only-registered", "--allow", "shop:total", "--allow", "jobs:*"),
    ):
        options = found.pools[0].options
        assert options.only_registered
        assert options.allow == ("shop:total", "jobs:*")
    with pytest.raises(ConfigurationError, match="means nothing without only_registered"):
        plan("--subject", "heavy", "--allow", "shop:total")
    with pytest.raises(ConfigurationError, match=r"'package\.module:name'"):
        plan("--subject", "heavy", "--only-registered", "--allow", "shop.total")
