"""``genro-nats dead``: what failed for good or could not be read; replay it or drop it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Final

from genro_nats.cli.distrust import note_distrusted
from genro_nats.cli.pool import CONNECTION_HELP, add_pool, with_pool
from genro_nats.cli.retry import replay
from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json, moment, one_line
from genro_nats.errors import ConfigurationError, TaskNotFoundError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.tasks.backend import DeadLetter

__all__ = ["add_arguments", "run"]

_ACTIONS: Final = ("list", "replay", "drop")
_EPILOG: Final = f"""\
examples:
  genro-nats dead --subject tasks.heavy
  genro-nats dead replay 5f0c... --subject tasks.heavy
  genro-nats dead drop 5f0c... --subject tasks.heavy

replay: the call becomes a new task, and the letter is dropped; drop: for good.
{CONNECTION_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "action", metavar="ACTION", nargs="?", choices=_ACTIONS, default="list", help=", ".join(_ACTIONS)
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="the dead letter to replay or drop")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="list so many; default 100")
    add_pool(parser)


def run(arguments: argparse.Namespace) -> int:
    """List, replay or drop; the exit code. Raises TaskError where there is no such letter."""
    if (arguments.action == "list") == bool(arguments.id):
        raise ConfigurationError(
            "Give `dead` alone to list, `dead replay ID` or `dead drop ID`. See: genro-nats dead --help"
        )
    if arguments.limit < 1:
        raise ConfigurationError(f"--limit is {arguments.limit}: use 1 or more.")

    async def work(pool: NatsExecutor) -> int:
        if arguments.action == "replay":
            return await replay(pool, arguments.id, json=arguments.json)
        if arguments.action == "drop":
            return await _drop(pool, arguments.id, json=arguments.json)
        letters = await pool.dead.list(arguments.limit)
        if arguments.json:
            print(as_json([asdict(letter) for letter in letters]))
        else:
            _show(letters, arguments.limit)
        note_distrusted(pool.metrics["distrusted"])
        return 0

    return with_pool(arguments, work)


async def _drop(pool: NatsExecutor, id: str, *, json: bool) -> int:
    if not await pool.dead.drop(id):
        raise TaskNotFoundError(f"There is no dead letter {id!r}: `genro-nats dead` lists them.", task_id=id)
    print(as_json({"id": id, "dropped": True}) if json else f"Dead letter {id} is dropped.")
    return 0


def _show(letters: list[DeadLetter], limit: int) -> None:
    if not letters:
        print("No dead letters.")
        return
    rows = [
        (
            letter.id,
            letter.function or "-",
            moment(letter.died_at),
            str(letter.attempts),
            str(letter.deaths),
            one_line(letter.reason),
            one_line(letter.error),
        )
        for letter in letters
    ]
    show_table(("task", "function", "died", "attempts", "deaths", "reason", "error"), rows)
    if len(letters) == limit:
        print(f"There may be more: --limit is {limit}.")
