"""``genro-nats task``: one durable task, its status now, its way to the end, or what it came to."""

from __future__ import annotations

import argparse
import sys
from contextlib import aclosing
from typing import Any, Final

from genro_nats.cli.arguments import quantity
from genro_nats.cli.pool import CONNECTION_HELP, add_pool, with_pool
from genro_nats.cli.tables import show_table
from genro_nats.cli.task_facts import as_json, one_line, plain, shown, status_facts, status_lines
from genro_nats.cli.task_watch import watching
from genro_nats.codec.error_text import plain as plain_text
from genro_nats.codec.error_text import text_of, type_name
from genro_nats.codec.exceptions import last_link
from genro_nats.config import parse_duration
from genro_nats.errors import CallTimeoutError, RemoteTraceback, TaskNotFoundError
from genro_nats.executor.nats import NatsExecutor
from genro_nats.tasks.handle import TaskHandle
from genro_nats.tasks.status import TaskState, TaskStatus

__all__ = ["add_arguments", "run"]

_EPILOG: Final = f"""\
examples:
  genro-nats task 5f0c... --subject tasks.heavy
  genro-nats task 5f0c... --subject tasks.heavy --watch
  genro-nats task 5f0c... --subject tasks.heavy --result --timeout 1m
  genro-nats task nightly.20261231T030000Z --subject tasks.heavy --json

--watch and --result wait until the task is settled, and exit with 1 unless it completed;
with --json, --watch prints one object per line. To show a value --result needs the modules of
its classes: they are imported from here and from --path. What JSON has no form for (objects, nan
and inf) is a text there, as Python shows it. Where the task was enqueued with keep_result=False,
reading its result deletes it.
{CONNECTION_HELP}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("id", metavar="ID", help="the task's id")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="show each change, until it is settled")
    what.add_argument("--result", action="store_true", help="wait for its result or error, and print it")
    parser.add_argument(
        "--timeout",
        type=quantity(parse_duration),
        metavar="TIME",
        help="how long --result waits; default: as long as it takes",
    )
    add_pool(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show it; the exit code.

    Raises:
        TaskNotFoundError: no such task.
        CallTimeoutError: its result was not there in time.
    """

    async def work(pool: NatsExecutor) -> int:
        task = pool.task(arguments.id)
        if arguments.result:
            return await _result(task, arguments)
        if arguments.watch:
            return await _watch(task, as_lines=arguments.json)
        status = await task.status()
        if arguments.json:
            print(as_json(status_facts(status)))
        else:
            show_table(*_table(status))
        return 0

    return with_pool(arguments, work)


def _table(status: TaskStatus) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    head, *rows = status_lines(status)
    return head, rows


async def _watch(task: TaskHandle[Any], *, as_lines: bool) -> int:
    status: TaskStatus | None = None
    with watching(objects=as_lines) as show:
        async with aclosing(task.watch()) as statuses:
            async for status in statuses:
                show(status)
    return 0 if status is not None and status.state is TaskState.COMPLETED else 1


async def _result(task: TaskHandle[Any], arguments: argparse.Namespace) -> int:
    try:
        value = await task.result(arguments.timeout)
    except Exception as error:  # whatever the function raised
        if not await _is_its_own(task, error):
            raise
        return _failed(task.id, error, as_object=arguments.json)
    if arguments.json:
        print(as_json({"id": task.id, "result": plain(value)}))
    else:
        print(plain_text(value) if issubclass(type(value), str) else shown(value))
    return 0


async def _is_its_own(task: TaskHandle[Any], error: Exception) -> bool:
    """Did the task end in this error, or was it our asking that failed?"""
    if _traceback(error):
        return True
    if isinstance(error, TaskNotFoundError):
        return False
    try:
        return (await task.status()).settled
    except TaskNotFoundError:  # read once, and deleted
        return not isinstance(error, CallTimeoutError)


def _failed(id: str, error: Exception, *, as_object: bool) -> int:
    name, text, trace = type_name(type(error)), text_of(error), _traceback(error)
    if as_object:
        print(as_json({"id": id, "error": {"type": name, "text": text, "traceback": trace}}))
        return 1
    if trace:
        print(trace.rstrip(), file=sys.stderr)
    print(f"genro-nats: task {id}: {name}: {one_line(text, 2000)}", file=sys.stderr)
    return 1


def _traceback(error: BaseException) -> str:
    """Where it was raised, over there; nothing for what was raised here."""
    last = last_link(error)
    return plain_text(last.text) if isinstance(last, RemoteTraceback) else ""
