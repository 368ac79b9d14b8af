"""From command line and file to what a worker serves, as whom, and how it logs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from genro_nats.cli.logs import LEVELS
from genro_nats.cli.settings import POOL, WORKER, given, known_keys
from genro_nats.config import PoolOptions, parse_duration
from genro_nats.config.files import parse_toml, read_text
from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError
from genro_nats.worker.agent import ServedPool

__all__ = ["PASSWORD", "TOKEN", "WorkerPlan", "connection_options", "worker_plan"]

PASSWORD: Final = "GENRO_NATS_PASSWORD"  # noqa: S105 - the name of a variable
TOKEN: Final = "GENRO_NATS_TOKEN"  # noqa: S105 - likewise
_SECRETS: Final = (("password", PASSWORD, "password_file"), ("token", TOKEN, "token_file"))


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """All of a worker's settings, checked. ``drain_timeout`` is in seconds."""

    pools: tuple[ServedPool, ...]
    connection: PoolOptions
    drain_timeout: float
    path: tuple[str, ...]
    log_level: str
    log_json: bool
    code_version: str = ""


@dataclass(frozen=True, slots=True)
class _File:
    """What the TOML file says: of the worker, and of each pool by name."""

    name: str
    worker: Mapping[str, Any]
    pools: Mapping[str, Mapping[str, Any]]


def worker_plan(arguments: argparse.Namespace, environ: Mapping[str, str] | None = None) -> WorkerPlan:
    """The plan of one worker; the command line wins over the file.

    Raises:
        ConfigurationError: an unknown key, a wrong value, a file that can't be read, no pool.
    """
    file, worker = _worker(arguments)
    connection = _connection(worker, file.name, os.environ if environ is None else environ)
    pools = tuple(_pool(name, table, connection, file.name) for name, table in _pools(arguments, file))
    level, path = worker.get("log_level", "info"), worker.get("path", [])
    if level not in LEVELS:
        raise ConfigurationError(f"log_level is {level!r}: use {', '.join(LEVELS)}.")
    return WorkerPlan(
        pools=pools,
        connection=PoolOptions(**connection),
        drain_timeout=parse_duration(worker.get("drain_timeout", 30.0)),
        path=tuple([path] if isinstance(path, str) else path),
        log_level=level,
        log_json=worker.get("log_json", False),
        code_version=worker.get("code_version", ""),
    )


def connection_options(arguments: argparse.Namespace) -> PoolOptions:
    """The part of a plan that says where the server is, for who serves nothing. Raises ConfigurationError."""
    file, worker = _worker(arguments)
    return PoolOptions(**_connection(worker, file.name, os.environ))


def _worker(arguments: argparse.Namespace) -> tuple[_File, dict[str, Any]]:
    """The file, and what it and the command line say of the worker."""
    file = _read(arguments.config) if arguments.config else _File("", {}, {})
    stated = given(arguments, WORKER)
    _refuse_login(stated.get("url", ""))
    return file, {**file.worker, **stated}


def _read(name: str) -> _File:
    path = Path(name).expanduser()
    document = parse_toml(read_text(path, name), name)
    for key, value in document.items():
        if key not in ("worker", "pools"):
            hint = did_you_mean(key, ["worker", "pools"])
            raise ConfigurationError(
                f"{name}: unknown table [{key}]; there are [worker] and [pools.<name>].{hint}"
            )
        _require_table(value, f"{name}: {key!r}")
    base = path.absolute().parent
    pools = {}
    for pool, table in document.get("pools", {}).items():
        _require_table(table, f"{name}: 'pools.{pool}'")
        pools[pool] = known_keys(table, POOL, f"{name}, [pools.{pool}]", base)
    return _File(name, known_keys(document.get("worker", {}), WORKER, f"{name}, [worker]", base), pools)


def _require_table(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} is not a table: write [worker] and [pools.<name>].")


# -- pools --------------------------------------------------------------------


def _pools(arguments: argparse.Namespace, file: _File) -> list[tuple[str, dict[str, Any]]]:
    """Each pool's name and settings; subjects on the command line choose among the file's."""
    stated = given(arguments, POOL)
    subjects: list[str] = stated.pop("subject", [])
    by_subject = {table.get("subject", f"tasks.{name}"): name for name, table in file.pools.items()}
    if len(by_subject) < len(file.pools):
        raise ConfigurationError(f"{file.name}: two pools serve the same subject: write one table for it.")
    chosen = list(dict.fromkeys(subjects)) or list(by_subject)
    if not chosen:
        raise ConfigurationError("No pool to serve: give --subject, or --config with a table [pools.<name>].")
    pools = []
    for subject in chosen:
        name = by_subject.get(subject, "")
        table = {**file.pools.get(name, {}), **stated, "subject": subject}
        pools.append((name or subject, table))
    return pools


def _pool(name: str, table: dict[str, Any], connection: Mapping[str, Any], file: str) -> ServedPool:
    kind = "async-process" if table.get("async") else "process"
    options = {s.option: table[s.name] for s in POOL if s.option and s.name in table}
    origins = {s.option: f"{s.name} in {file}" if file else s.argument for s in POOL if s.option in options}
    if options.get("allow") and not options.get("only_registered"):
        raise ConfigurationError(
            f"Pool {name!r}: allow (--allow) lists what may run, and means nothing without only_registered "
            "(--only-registered)."
        )
    stated = {**connection, **options}
    return ServedPool(PoolOptions.build("nats", stated, name=name, origins=origins), kind)


# -- the connection -----------------------------------------------------------


def _refuse_login(url: str) -> None:
    if "@" in url:
        raise ConfigurationError(
            "--url holds a login, and every user of a machine can see arguments: set NATS_URL to it, write it "
            f"in the file of --config, or give --user and {PASSWORD}, or {TOKEN}."
        )


def _connection(worker: Mapping[str, Any], file: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that say where the server is, and as whom to connect."""
    options = {s.option: worker[s.name] for s in WORKER if s.option and s.name in worker}
    for option, variable, from_file in _SECRETS:
        if from_file in worker:
            options[option] = read_text(Path(worker[from_file]).expanduser(), from_file).strip()
        elif environ.get(variable):
            options[option] = environ[variable]
    if options.get("password") and not options.get("user"):
        raise ConfigurationError(f"A password ({PASSWORD} or password_file) needs --user beside it.")
    origins = dict.fromkeys(options, f"{file or 'worker'}")
    PoolOptions.build("nats", options, name="worker", origins=origins)
    return options
