"""What a worker can be told, on the command line and in its file: one table for both."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from genro_nats.cli.arguments import quantity
from genro_nats.cli.logs import LEVELS
from genro_nats.config import parse_duration, parse_size
from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError

__all__ = ["POOL", "TASKS", "WORKER", "Setting", "add_settings", "given", "known_keys"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing to set. ``name`` is its key in the file, and with dashes its option.

    ``option``: the PoolOptions field it becomes; "" for what only this command knows.
    ``flag``: the option's name where it differs. ``many``: it may be repeated.
    """

    name: str
    help: str
    option: str = ""
    metavar: str = ""
    flag: str = ""
    parse: Callable[[str], Any] = str
    many: bool = False
    switch: bool = False
    choices: tuple[str, ...] | None = None

    @property
    def argument(self) -> str:
        """The option on the command line."""
        return f"--{self.flag or self.name.replace('_', '-')}"


_SECONDS: Final = quantity(parse_duration)
_BYTES: Final = quantity(parse_size)

# Callers and workers state them alike: a stream that exists with other settings is refused.
TASKS: Final = (
    Setting(
        "lease",
        "silence after which a worker's durable tasks are given to another; default 10s",
        "lease",
        "TIME",
        parse=_SECONDS,
    ),
    Setting(
        "replicas", "servers that hold each stream of the pool's tasks; default 1", "replicas", "N", parse=int
    ),
    Setting(
        "storage",
        "where the servers keep the pool's tasks: file (default) or memory",
        "storage",
        "KIND",
        choices=("file", "memory"),
    ),
)

POOL: Final = (
    Setting("subject", "subject to serve; repeated: a pool for each", "subject", "SUBJECT", many=True),
    Setting("processes", "children; default: one per usable CPU", "max_workers", "N", parse=int),
    Setting("threads", "calls that one child runs at the same time; default 1", "threads", "M", parse=int),
    Setting("async", "children run async functions in an event loop each", switch=True),
    Setting("concurrency", "calls at a time in an --async child; default 100", "concurrency", "N", parse=int),
    Setting("imports", "module that children preload", "imports", "MODULE", "import", many=True),
    Setting(
        "init", "function run once in each child, such as myapp.tasks:load", "initializer", "MODULE:NAME"
    ),
    Setting(
        "only_registered",
        "run functions only that are decorated in a module of --import or listed, and unpickle nothing",
        "only_registered",
        switch=True,
    ),
    Setting(
        "allow",
        "function (or context variable) to allow beside; module:* for all that a module defines",
        "allow",
        "MODULE:NAME",
        many=True,
    ),
    Setting(
        "max_tasks_per_child", "calls after which a child is replaced", "max_tasks_per_child", "N", parse=int
    ),
    Setting(
        "max_memory_per_child",
        "resident memory at which a child is replaced, such as 512MB",
        "max_memory_per_child",
        "SIZE",
        parse=_BYTES,
    ),
    Setting(
        "memory_limit",
        "memory a child may hold, such as 1GB: at 80 %% of it no new calls, at 95 %% its end",
        "memory_limit",
        "SIZE",
        parse=_BYTES,
    ),
    Setting("spares", "warm children kept ready as replacements; default 1", "spares", "N", parse=int),
    Setting(
        "cancel_grace",
        "how long a cancelled call in a shared child may go on; default 1s",
        "cancel_grace",
        "TIME",
        parse=_SECONDS,
    ),
    Setting(
        "start_timeout",
        "how long a child's imports and init may take; default 60s",
        "start_timeout",
        "TIME",
        parse=_SECONDS,
    ),
    Setting(
        "max_backlog",
        "calls held at most, running and waiting; more are refused, and sent again by their callers; default 100000",
        "max_backlog",
        "N",
        parse=int,
    ),
    Setting(
        "max_backlog_size",
        "bytes that these calls and unread results take at most; default 1GiB",
        "max_backlog_size",
        "SIZE",
        parse=_BYTES,
    ),
    Setting(
        "inline_limit",
        "size above which results are pulled in chunks; default 1MiB",
        "inline_limit",
        "SIZE",
        parse=_BYTES,
    ),
    Setting(
        "max_payload_size",
        "size of a call, result or item that is taken or sent at most; default 4GiB",
        "max_payload_size",
        "SIZE",
        parse=_BYTES,
    ),
    *TASKS,
    Setting(
        "orphan_ttl",
        "age at which stored payloads that no task refers to are dropped; default 1h",
        "orphan_ttl",
        "TIME",
        parse=_SECONDS,
    ),
)

WORKER: Final = (
    Setting(
        "url", "server, several with commas, or 'embedded'; default: NATS_URL, then loopback", "url", "URL"
    ),
    Setting("user", "user name at the server", "user", "NAME"),
    Setting("password_file", "file with the password; or GENRO_NATS_PASSWORD", metavar="FILE"),
    Setting("token_file", "file with the token; or GENRO_NATS_TOKEN", metavar="FILE"),
    Setting("credentials", "credentials file (.creds)", "credentials_file", "FILE"),
    Setting("nkey", "file with the seed of an nkey", "nkey_seed_file", "FILE"),
    Setting("tls_ca", "file with the authorities that certify the server", "tls_ca", "FILE"),
    Setting("tls_cert", "file with this client's certificate", "tls_cert", "FILE"),
    Setting("tls_key", "file with the key of that certificate", "tls_key", "FILE"),
    Setting("tls_hostname", "name expected in the server's certificate", "tls_hostname", "NAME"),
    Setting(
        "key_file", "file with the shared keys that sign all messages; or GENRO_NATS_KEY", "key_file", "FILE"
    ),
    Setting(
        "replay_window",
        "age at which signed calls are refused; default 1m",
        "replay_window",
        "TIME",
        parse=_SECONDS,
    ),
    Setting("prefix", "first part of every subject; default genro", "prefix", "WORD"),
    Setting(
        "function_cache",
        "bytes of functions by value that the worker and each child keep; default 256MiB",
        "function_cache",
        "SIZE",
        parse=_BYTES,
    ),
    Setting(
        "connect_timeout",
        "how long the first connection may take; default 5s",
        "connect_timeout",
        "TIME",
        parse=_SECONDS,
    ),
    Setting(
        "drain_timeout", "how long calls in hand get to finish; default 30s", metavar="TIME", parse=_SECONDS
    ),
    Setting("path", "directory or wheel to import from, before all others", metavar="DIR", many=True),
    Setting(
        "code_version",
        "version of your code that `genro-nats workers` shows; default: GENRO_NATS_CODE_VERSION, then the commit here",
        metavar="VERSION",
    ),
    Setting("log_level", f"{', '.join(LEVELS)}; default info", metavar="LEVEL", choices=LEVELS),
    Setting("log_json", "log JSON, one object per line", switch=True),
)


def add_settings(group: Any, settings: tuple[Setting, ...]) -> None:
    """Add them to a parser or argument group; those not given are absent from the result."""
    for setting in settings:
        options: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": setting.help}
        if setting.switch:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"metavar": setting.metavar, "type": setting.parse, "choices": setting.choices}
            if setting.many:
                options["action"] = "append"
        group.add_argument(setting.argument, **options)


def given(arguments: argparse.Namespace, settings: tuple[Setting, ...]) -> dict[str, Any]:
    """What of ``settings`` stands on the command line."""
    stated = vars(arguments)
    return {setting.name: stated[setting.name] for setting in settings if setting.name in stated}


def known_keys(
    table: Mapping[str, Any], settings: tuple[Setting, ...], where: str, base: Path
) -> dict[str, Any]:
    """A table of the file, its keys checked and by the names of ``settings``.

    The PoolOptions names are good too. Files and directories count from ``base``.
    Raises ConfigurationError for a key that nothing is known of.
    """
    names = {setting.name: setting for setting in settings}
    names |= {setting.option: setting for setting in settings if setting.option}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            hint = did_you_mean(key, names)
            known = ", ".join(setting.name for setting in settings)
            raise ConfigurationError(f"{where}: unknown key {key!r}.{hint} Keys: {known}.", option=key)
        setting = names[key]
        if setting.name in found:
            raise ConfigurationError(f"{where}: {key!r} and {setting.name!r} mean the same: keep one.")
        if setting.switch and not isinstance(value, bool):
            raise ConfigurationError(f"{where}: {key!r} is {value!r}: write true or false.")
        found[setting.name] = _from(base, value) if setting.metavar in ("FILE", "DIR") else value
    return found


def _from(base: Path, value: Any) -> Any:
    if isinstance(value, str) and value:
        return str(base / Path(value).expanduser())
    return [_from(base, item) for item in value] if isinstance(value, list) else value
