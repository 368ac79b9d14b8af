"""The workers behind a server, as commands see them: asked, heard, and chosen by name."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Final

from genro_nats import __version__
from genro_nats.cli.arguments import quantity
from genro_nats.cli.pool import CONNECTION
from genro_nats.cli.settings import add_settings
from genro_nats.cli.worker_plan import connection_options
from genro_nats.config import PoolOptions, parse_duration
from genro_nats.config.versions import apart
from genro_nats.errors import ConnectionLostError, NoWorkersError, PermissionDeniedError
from genro_nats.transport.address import Address
from genro_nats.transport.denials import Denied
from genro_nats.transport.guard import make_guard
from genro_nats.transport.identity import identity, named_peer
from genro_nats.transport.nats import Connection, Message
from genro_nats.transport.subjects import caller_inbox, presence_ask, presence_of

__all__ = ["FLEET_HELP", "Fleet", "add_fleet", "apart_lines", "with_fleet"]

FLEET_HELP: Final = """\
The server is given as to `genro-nats worker`, or by its file: --config.
Exit codes: 0 done, 1 it failed or no worker answers, 2 bad usage. Passwords and tokens come
from GENRO_NATS_PASSWORD and GENRO_NATS_TOKEN or from files.
"""
_QUIET: Final = 0.25  # seconds without another answer after which all have answered
_SLOWEST: Final = 10  # times as long as the first one some may take
_DISBELIEVED: Final = (
    "workers are there, but none says anything in time that can be believed. Is there a shared key "
    "(--key-file, GENRO_NATS_KEY) that only one side has? Else try a longer --wait."
)
Facts = dict[str, Any]


class Fleet:
    """Asks the workers of one prefix. ``heard`` is called with each heartbeat."""

    def __init__(self, connection: Connection, options: PoolOptions, wait: float) -> None:
        self.connection = connection
        self.options = options
        self.heard: Callable[[Facts], object] = lambda _: None
        self.inbox = caller_inbox(options.prefix, named_peer(identity(options), 24))
        self._wait = wait
        self._found: dict[str, Facts] = {}
        self._nobody = False
        self._denied: PermissionDeniedError | None = None
        self._answer = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises PermissionDeniedError if this user may not."""
        self.connection.denials.listeners.append(self._forbidden)
        await self.connection.subscribe(self.inbox + "*", self._answered)
        await self.connection.subscribe(presence_of(self.options.prefix, "*"), self._beat)
        await self.flush()

    async def flush(self) -> None:
        """Wait until the server has dealt with all that was sent. Raises PermissionDeniedError if it forbade some."""
        await self.connection.flush()
        self._check()

    async def ask(self) -> list[Facts]:
        """What each worker says of itself now, in a steady order; empty if none answers.

        Raises PermissionDeniedError if this user may not ask.
        """
        self._found, self._nobody = {}, False
        await self.connection.publish(presence_ask(self.options.prefix), b"", self.inbox + "fleet")
        loop = asyncio.get_running_loop()
        begin = loop.time()
        limit, quiet = begin + self._wait, inf
        while not self._nobody and loop.time() < limit:
            self._answer.clear()
            try:
                await asyncio.wait_for(self._answer.wait(), min(quiet, max(0.0, limit - loop.time())))
            except TimeoutError:
                break
            self._check()
            if quiet == inf and self._found:
                quiet = max(_QUIET, _SLOWEST * (loop.time() - begin))
        return sorted(
            self._found.values(), key=lambda facts: (facts["host"], facts["began"], facts["worker"])
        )

    async def ask_again(self) -> list[Facts]:
        """As ``ask``, for who watches: without a server it is waited for."""
        while True:
            await self.connection.up.wait()
            try:
                return await self.ask()
            except ConnectionLostError:
                continue

    async def some(self) -> list[Facts]:
        """As ``ask``. Raises NoWorkersError if none answers."""
        found = await self.ask()
        if not found:
            way_out = (
                "start one (genro-nats worker --url ... --subject ...), or check --url and --prefix."
                if self._nobody
                else _DISBELIEVED
            )
            raise NoWorkersError(
                f"No worker answers at {self.connection.shown} under the prefix {self.options.prefix!r}: {way_out}",
                subject=presence_ask(self.options.prefix),
            )
        return found

    def note_silence(self) -> None:
        """Say on stderr if none of the workers that are there could be heard: a list would look as without any."""
        if not self._found and not self._nobody:
            print(f"note: {_DISBELIEVED}", file=sys.stderr)

    def _forbidden(self, denied: Denied) -> bool:
        self._denied = denied.error()
        self._answer.set()
        return True

    def _check(self) -> None:
        if self._denied is not None:
            raise self._denied

    def _answered(self, message: Message) -> None:
        if message.status == "503":
            self._nobody = True
        elif (facts := _read(message.data)) is not None:
            self._found[facts["worker"]] = facts
        self._answer.set()

    def _beat(self, message: Message) -> None:
        if (facts := _read(message.data)) is not None:
            self.heard(facts)


def _read(data: bytes) -> Facts | None:
    """A worker's facts, if they have the form of schema 1."""
    try:
        facts = json.loads(data)
        numbers = [facts[key] for key in ("began", "uptime", "cpu", "memory")]
        texts = [facts[key] for key in ("worker", "host", "state", "version", "code")]
        fits = all(isinstance(n, int | float) for n in numbers) and all(isinstance(t, str) for t in texts)
        return facts if fits and isinstance(facts["pools"], list) else None
    except (ValueError, KeyError, TypeError):
        return None


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """The options that say where the server is; how long to wait; and ``--json``."""
    server = parser.add_argument_group("server")
    server.add_argument("--config", metavar="FILE", help="the worker's TOML file, with what stands there")
    add_settings(server, CONNECTION)
    parser.add_argument(
        "--wait",
        type=quantity(parse_duration),
        default=2.0,
        metavar="TIME",
        help="how long workers have to answer; default 2s",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def with_fleet(arguments: argparse.Namespace, work: Callable[[Fleet], Awaitable[int]]) -> int:
    """Do ``work`` with the fleet that the arguments name; its exit code."""
    return asyncio.run(_work(connection_options(arguments), arguments.wait, work))


async def _work(options: PoolOptions, wait: float, work: Callable[[Fleet], Awaitable[int]]) -> int:
    async with _open(options, wait) as fleet:
        return await work(fleet)


@asynccontextmanager
async def _open(options: PoolOptions, wait: float) -> AsyncIterator[Fleet]:
    connection = Connection(
        Address(options), "genro-nats fleet", options.connect_timeout, make_guard(options)
    )
    await connection.start()
    try:
        fleet = Fleet(connection, options, wait)
        await fleet.start()
        yield fleet
    finally:
        await connection.aclose()


def apart_lines(found: list[Facts]) -> list[str]:
    """A line for each version among the workers that is too far from this one."""
    versions = sorted({facts["version"] for facts in found if apart(facts["version"], __version__)})
    return [
        f"genro-nats {version} is more than one minor version from {__version__} here: calls between them "
        "may be refused. Bring them closer."
        for version in versions
    ]
