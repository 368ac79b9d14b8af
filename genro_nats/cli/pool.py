"""The pool that a command about tasks is about: its options on the command line, and how it is reached."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from genro_nats.cli.search_path import set_up_path
from genro_nats.cli.settings import POOL, TASKS, WORKER, add_settings
from genro_nats.cli.worker_plan import worker_plan
from genro_nats.errors import ConfigurationError
from genro_nats.executor.nats import NatsExecutor

__all__ = ["CONNECTION", "CONNECTION_HELP", "add_pool", "with_pool"]

_OF_WORKERS_ONLY: Final = ("drain_timeout", "code_version", "function_cache", "log_level", "log_json")
CONNECTION: Final = tuple(setting for setting in WORKER if setting.name not in _OF_WORKERS_ONLY)
_SUBJECT: Final = tuple(
    replace(setting, help="the pool's subject; not needed with the --config of a single pool")
    for setting in POOL
    if setting.name == "subject"
)
CONNECTION_HELP: Final = """\
The pool and the server are given as to `genro-nats worker`, or by its file: --config.
Exit codes: 0 done, 1 it failed or there is none, 2 bad usage. Passwords and tokens come
from GENRO_NATS_PASSWORD and GENRO_NATS_TOKEN or from files.
"""


def add_pool(parser: argparse.ArgumentParser) -> None:
    """The options that say which pool, where its server is, and as whom to connect; and ``--json``."""
    pool = parser.add_argument_group("pool")
    pool.add_argument("--config", metavar="FILE", help="the worker's TOML file, with what stands there")
    add_settings(pool, _SUBJECT)
    add_settings(pool, TASKS)
    pool.add_argument(
        "--codec",
        choices=("pickle", "data"),
        help="data: unpickle nothing that is read; default: so for a pool with only_registered, else pickle",
    )
    add_settings(parser.add_argument_group("server"), CONNECTION)
    parser.add_argument("--json", action="store_true", help="print JSON")


def with_pool(arguments: argparse.Namespace, work: Callable[[NatsExecutor], Awaitable[int]]) -> int:
    """Do ``work`` with the pool that the arguments name; its exit code.

    Raises:
        ConfigurationError: no pool, several, or a wrong option.
    """
    plan = worker_plan(arguments)
    if len(plan.pools) > 1:
        subjects = ", ".join(str(pool.options.subject) for pool in plan.pools)
        raise ConfigurationError(f"Which pool? Give one --subject, of {subjects}.")
    set_up_path(plan.path)
    (served,) = plan.pools
    only_data = arguments.codec == "data" or (arguments.codec is None and served.options.only_registered)
    options = replace(served.options, codec="data" if only_data else "pickle")
    return asyncio.run(_work(NatsExecutor(str(options.subject), options), work))


async def _work(pool: NatsExecutor, work: Callable[[NatsExecutor], Awaitable[int]]) -> int:
    async with pool:
        return await work(pool)
