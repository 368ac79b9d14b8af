"""``genro-nats cancel``: end a durable task, whatever its state."""

from __future__ import annotations

import argparse
from typing import Final

from genro_nats.cli.arguments import quantity
from genro_nats.cli.pool import CONNECTION_HELP, add_pool, with_pool
from genro_nats.cli.task_facts import as_json
from genro_nats.config import parse_duration
from genro_nats.errors import TaskError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.tasks.handle import CANCEL_TIMEOUT

__all__ = ["add_arguments", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats cancel 5f0c... --subject tasks.heavy
  genro-nats cancel 5f0c... --subject tasks.heavy --timeout 30s

A task that waits never runs. One that runs is asked to end, and after the worker's
cancel_grace its child is killed. The request is stored: with no worker there, the next
one to start carries it out. Exit code 1: it had ended before, or has not ended in time.
{CONNECTION_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("id", metavar="ID", help="the task's id")
    parser.add_argument(
        "--timeout",
        type=quantity(parse_duration),
        default=CANCEL_TIMEOUT,
        metavar="TIME",
        help=f"how long to wait until it has ended; default {CANCEL_TIMEOUT:g}s",
    )
    add_pool(parser)


def run(arguments: argparse.Namespace) -> int:
    """Cancel it; the exit code.

    Raises:
        TaskNotFoundError: no such task.
        TaskError: it is not cancelled.
    """

    async def work(pool: NatsExecutor) -> int:
        task = pool.task(arguments.id)
        cancelled = await task.cancel(arguments.timeout)
        state = (await task.status()).state
        if arguments.json:
            print(as_json({"id": task.id, "cancelled": cancelled, "state": state}))
            return 0 if cancelled else 1
        if cancelled:
            print(f"Task {task.id} is cancelled.")
            return 0
        if state.settled:
            raise TaskError(f"Task {task.id} is {state} already: there is nothing left to cancel.")
        raise TaskError(
            f"Task {task.id} is still {state} after {arguments.timeout:g} s. The request is stored, and "
            "is carried out by the next worker that serves this pool: is one running?"
        )

    return with_pool(arguments, work)
