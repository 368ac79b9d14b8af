"""``genro-nats drain``: tell workers to finish what they have and leave, and wait until they have."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Any, Final

from genro_nats.cli.arguments import quantity
from genro_nats.cli.fleet import FLEET_HELP, Fleet, add_fleet, with_fleet
from genro_nats.cli.fleet_facts import total
from genro_nats.cli.task_facts import as_json, one_line
from genro_nats.codec.frame import Frame, FrameKind, encode
from genro_nats.config import parse_duration
from genro_nats.errors import CallTimeoutError, ConfigurationError, NoWorkersError
from genro_nats.transport.subjects import drain_inbox

__all__ = ["add_arguments", "chosen", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats drain 3fa9
  genro-nats drain --host build-7
  genro-nats drain --all --no-wait

A worker is named by its id or the beginning of it, as `genro-nats workers` shows it. It takes no more
calls and tasks, finishes those in hand within its --drain-timeout, and exits with 0; a supervisor
that restarts what ends will start another. Exit codes here: 0 all have left with nothing undone,
1 calls were left undone, one fell silent or was not done within --timeout, 2 bad usage.
{FLEET_HELP}"""
_ASK: Final = 1.0  # seconds
_SILENT: Final = 6.0  # seconds without a sign: it has ended without a word
Facts = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("worker", metavar="WORKER", nargs="?", help="a worker's id, or the beginning of it")
    parser.add_argument("--host", metavar="HOST", help="all workers of this host")
    parser.add_argument("--all", action="store_true", help="all workers")
    parser.add_argument("--no-wait", action="store_true", help="tell them, and return")
    parser.add_argument(
        "--timeout",
        type=quantity(parse_duration),
        metavar="TIME",
        help="how long to wait for them; default: as long as it takes",
    )
    add_fleet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Drain them; the exit code.

    Raises:
        NoWorkersError: none answers, or none of that name.
        PermissionDeniedError: this user may not tell workers to leave.
        CallTimeoutError: they were not done in time; they go on.
    """
    if sum((bool(arguments.worker), bool(arguments.host), arguments.all)) != 1:
        raise ConfigurationError(
            "Whom? Give a worker's id, or --host HOST, or --all. See: genro-nats drain --help"
        )

    async def work(fleet: Fleet) -> int:
        workers = chosen(await fleet.some(), arguments.worker, arguments.host)
        leaving = _Leaving(fleet, workers, as_lines=arguments.json)
        await leaving.tell()
        if arguments.no_wait:
            return 0
        return await leaving.gone(arguments.timeout)

    return with_fleet(arguments, work)


def chosen(found: list[Facts], worker: str | None, host: str | None) -> list[Facts]:
    """Those that are meant.

    Raises:
        NoWorkersError: none is.
        ConfigurationError: the beginning of an id fits several.
    """
    if worker is not None:
        fits = [facts for facts in found if facts["worker"].startswith(worker.lower())]
        if len(fits) > 1:
            ids = ", ".join(one_line(facts["worker"]) for facts in fits)
            raise ConfigurationError(
                f"{worker!r} is the beginning of {len(fits)} workers: {ids}. Give more of it."
            )
    elif host is not None:
        fits = [facts for facts in found if facts["host"] == host]
    else:
        fits = found
    if not fits:
        there = ", ".join(f"{one_line(facts['worker'])} on {one_line(facts['host'])}" for facts in found)
        raise NoWorkersError(f"There is no worker {worker or 'on ' + str(host)}. There are: {there}.")
    return fits


def _sign(facts: Facts) -> tuple[str, int]:
    return facts["state"], total(facts, "busy")


class _Leaving:
    """Workers on their way out. ``as_lines``: each change as a line of JSON."""

    def __init__(self, fleet: Fleet, workers: list[Facts], *, as_lines: bool) -> None:
        self._fleet = fleet
        self._waiting = {facts["worker"]: facts for facts in workers}
        self._heard = dict.fromkeys(self._waiting, time.monotonic())
        self._code = 0
        self._as_lines = as_lines
        self._change = asyncio.Event()

    async def tell(self) -> None:
        """Tell them to leave. Raises PermissionDeniedError if this user may not."""
        leave = encode(Frame(FrameKind.LEAVE))
        for facts in self._waiting.values():
            where = drain_inbox(self._fleet.options.prefix, facts["worker"])
            await self._fleet.connection.publish(where, leave, self._fleet.inbox + "drain")
        early: list[Facts] = []
        self._fleet.heard = early.append
        await self._fleet.flush()
        for facts in self._waiting.values():
            self._show(facts["worker"], "told", facts)
        self._fleet.heard = self._note
        for facts in early:
            self._note(facts)

    async def gone(self, limit: float | None) -> int:
        """Wait until all have left; the exit code."""
        try:
            async with asyncio.timeout(limit):
                while self._waiting:
                    await self._look()
        except TimeoutError:
            left = ", ".join(self._waiting)
            raise CallTimeoutError(
                f"Still there after {limit:g} s: {left}. They go on draining; look again with genro-nats workers.",
                timeout=limit,
            ) from None
        return self._code

    async def _look(self) -> None:
        self._change.clear()
        try:
            await asyncio.wait_for(self._change.wait(), _ASK)
        except TimeoutError:
            if not self._fleet.connection.connected:  # nobody could be heard
                await self._fleet.connection.up.wait()
                self._heard = dict.fromkeys(self._heard, time.monotonic())
            for facts in await self._fleet.ask_again():
                self._note(facts)
        now = time.monotonic()
        for worker in [w for w in self._waiting if now - self._heard[w] > _SILENT]:
            self._leave(worker, "silent", self._waiting[worker], 1)

    def _note(self, facts: Facts) -> None:
        worker = facts["worker"]
        if worker not in self._waiting:
            return
        self._heard[worker] = time.monotonic()
        if facts["state"] == "gone":
            self._leave(worker, "gone", facts, 1 if facts.get("left") else 0)
        elif _sign(facts) != _sign(self._waiting[worker]):
            self._waiting[worker] = facts
            self._show(worker, facts["state"], facts)

    def _leave(self, worker: str, how: str, facts: Facts, code: int) -> None:
        del self._waiting[worker]
        self._code = max(self._code, code)
        self._show(worker, how, facts)
        self._change.set()

    def _show(self, worker: str, what: str, facts: Facts) -> None:
        busy, left = total(facts, "busy"), int(facts.get("left") or 0)
        if self._as_lines:
            print(as_json({"worker": worker, "state": what, "busy": busy, "left": left}), flush=True)
            return
        words = {
            "told": "told to leave",
            "gone": f"left, {left} calls undone" if left else "left, all done",
            "silent": "fell silent: it may have been killed",
        }
        more = f", {busy} calls in hand" if what not in ("gone", "silent") else ""
        print(f"{one_line(worker)}  {words.get(what, one_line(what))}{more}", flush=True)
        sys.stdout.flush()
