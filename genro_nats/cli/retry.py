"""``genro-nats retry``: run a failed task again, from its dead letter."""

from __future__ import annotations

import argparse
from typing import Final

from genro_nats.cli.pool import CONNECTION_HELP, add_pool, with_pool
from genro_nats.cli.task_facts import as_json
from genro_nats.errors import TaskError, TaskNotFoundError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.tasks.status import TaskState

__all__ = ["add_arguments", "replay", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats retry 5f0c... --subject tasks.heavy
  genro-nats retry 5f0c... --config workers/worker.toml --json

The call of the dead letter, with its arguments and options, becomes a new task, whose id is
printed; the letter is dropped. The failed task's own status stays as it is.
{CONNECTION_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("id", metavar="ID", help="the id of a failed task, or of a dead letter")
    add_pool(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay it; the exit code. Raises TaskError where there is nothing to replay."""

    async def work(pool: NatsExecutor) -> int:
        return await replay(pool, arguments.id, json=arguments.json)

    return with_pool(arguments, work)


async def replay(pool: NatsExecutor, id: str, *, json: bool) -> int:
    """Enqueue the call of a dead letter again, and say under which id. Raises TaskError."""
    try:
        task = await pool.dead.replay(id)
    except TaskNotFoundError:
        raise TaskError(await _why_not(pool, id)) from None
    print(as_json({"id": task.id, "replayed": id}) if json else f"{id} runs again as task {task.id}")
    return 0


async def _why_not(pool: NatsExecutor, id: str) -> str:
    try:
        state = (await pool.task(id).status()).state
    except TaskNotFoundError:
        return f"There is no task and no dead letter {id!r}: `genro-nats dead` lists those that there are."
    if state is TaskState.FAILED:
        return f"Task {id} failed, and its dead letter was dropped or replayed: enqueue it anew."
    return f"Task {id} is {state}: only failed tasks have dead letters, and run again."
