"""``genro-nats top``: the fleet, live."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from genro_nats.cli.arguments import quantity
from genro_nats.cli.fleet import FLEET_HELP, Fleet, add_fleet, apart_lines, with_fleet
from genro_nats.cli.fleet_facts import cpu, error_text, lasting, memory, total
from genro_nats.cli.tables import fancy, show_table
from genro_nats.cli.task_facts import as_json, one_line
from genro_nats.config import parse_duration
from genro_nats.config.units import shown_size
from genro_nats.errors import ConfigurationError

__all__ = ["add_arguments", "rates", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats top
  genro-nats top --interval 5s
  genro-nats top --once
  genro-nats top --json | jq .totals

calls/s: ended within the last interval. Ctrl-C ends it. --json prints an object per interval.
{FLEET_HELP}"""
_COLUMNS: Final = (
    "worker", "host", "state", "pools", "busy", "queued", "tasks", "calls/s", "failed/s", "cpu", "memory", "up",
    "last error",
)  # fmt: skip
Picture = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("--once", action="store_true", help="show one interval, and end")
    parser.add_argument(
        "--interval",
        type=quantity(parse_duration),
        default=2.0,
        metavar="TIME",
        help="time between two pictures; default 2s",
    )
    add_fleet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show it until Ctrl-C; the exit code."""
    if arguments.interval < 0.1:
        raise ConfigurationError(f"--interval is {arguments.interval:g} s: use 0.1 or more.")

    async def work(fleet: Fleet) -> int:
        with _screen(arguments) as show:
            await _watch(fleet, arguments, show)
        return 0

    try:
        return with_fleet(arguments, work)
    except KeyboardInterrupt:
        return 0  # that is how it ends


async def _watch(fleet: Fleet, arguments: argparse.Namespace, show: Callable[[Picture], object]) -> None:
    before = await (fleet.some() if arguments.once else fleet.ask())
    seen = time.monotonic()
    while True:
        await asyncio.sleep(arguments.interval)
        found, now = await fleet.ask_again(), time.monotonic()
        show(picture(before, found, now - seen))
        if arguments.once:
            return
        before, seen = found, now


def rates(before: list[Picture], found: list[Picture], seconds: float) -> dict[str, tuple[float, float]]:
    """Calls that ended and calls that failed per second, of each worker."""
    known = {facts["worker"]: facts for facts in before}
    result = {}
    for facts in found:
        old = known.get(facts["worker"], facts)
        ended, failed = (total(facts, key) - total(old, key) for key in ("completed", "failed"))
        result[facts["worker"]] = (max(0, ended + failed) / seconds, max(0, failed) / seconds)
    return result


def picture(before: list[Picture], found: list[Picture], seconds: float) -> Picture:
    """What is shown of one interval."""
    speed = rates(before, found, seconds)
    workers = [
        {**facts, "calls_per_second": round(speed[facts["worker"]][0], 3),
         "failed_per_second": round(speed[facts["worker"]][1], 3)}
        for facts in found
    ]  # fmt: skip
    totals = {
        "workers": len(found),
        **{key: sum(total(facts, key) for facts in found) for key in ("slots", "busy", "queued")},
        "calls_per_second": round(sum(worker["calls_per_second"] for worker in workers), 3),
        "failed_per_second": round(sum(worker["failed_per_second"] for worker in workers), 3),
        "cpu": round(sum(map(cpu, found)), 3),
        "memory": sum(map(memory, found)),
    }
    return {"at": round(time.time(), 3), "seconds": round(seconds, 3), "totals": totals, "workers": workers}


def _rows(shown: Picture) -> list[tuple[str, ...]]:
    return [
        (
            one_line(worker["worker"]),
            one_line(worker["host"]),
            one_line(worker["state"]),
            one_line(", ".join(str(pool.get("subject")) for pool in worker["pools"])),
            f"{total(worker, 'busy')}/{total(worker, 'slots')}",
            str(total(worker, "queued")),
            str(sum(int(pool.get("tasks", {}).get("held", 0)) for pool in worker["pools"])),
            f"{worker['calls_per_second']:,.1f}",
            f"{worker['failed_per_second']:,.1f}",
            f"{cpu(worker):.0%}",
            shown_size(memory(worker)),
            lasting(worker["uptime"]),
            error_text(worker) or "-",
        )
        for worker in shown["workers"]
    ]


def _head(shown: Picture) -> str:
    sums = shown["totals"]
    return (
        f"{time.strftime('%H:%M:%S')}  {sums['workers']} workers  {sums['busy']}/{sums['slots']} busy  "
        f"{sums['queued']} queued  {sums['calls_per_second']:,.1f} calls/s  "
        f"{sums['failed_per_second']:,.1f} failed/s  cpu {sums['cpu']:.0%}  {shown_size(sums['memory'])}"
    )


@contextmanager
def _screen(arguments: argparse.Namespace) -> Iterator[Callable[[Picture], object]]:
    """Gives what is to be called with each picture."""
    if arguments.json:
        yield lambda shown: print(as_json(shown), flush=True)
    elif fancy() and not arguments.once:
        with _live() as show:
            yield show
    else:
        yield _print


def _print(shown: Picture) -> None:
    print(_head(shown))
    show_table(_COLUMNS, _rows(shown))
    for line in apart_lines(shown["workers"]):
        print(f"note: {line}")
    print(flush=True)


@contextmanager
def _live() -> Iterator[Callable[[Picture], object]]:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def drawn(shown: Picture) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(_COLUMNS):
            table.add_column(column, no_wrap=number == 0, overflow="ellipsis")
        for row in _rows(shown):
            table.add_row(*map(Text, row))
        return Group(Text(_head(shown), style="bold"), table, *map(Text, apart_lines(shown["workers"])))

    with Live(Text("asking the workers ..."), screen=True, auto_refresh=False) as live:
        yield lambda shown: live.update(drawn(shown), refresh=True)
