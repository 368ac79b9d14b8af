"""``genro-nats worker``: serve pools until a signal says to leave."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from genro_nats.cli.logs import set_up_logging
from genro_nats.cli.settings import POOL, WORKER, add_settings
from genro_nats.errors import ConfigurationError, ExecutorError
from genro_nats.events import Events

if TYPE_CHECKING:
    from genro_nats.cli.worker_plan import WorkerPlan

__all__ = ["add_arguments", "run"]

log: Final = logging.getLogger("genro_nats.worker")

_UNSIGNED: Final = (
    "UNSIGNED CALLS ARE ACCEPTED from a server that is not on this machine: "
    "whoever may publish there can run code here"
)
_EPILOG: Final = """\
examples:
  genro-nats worker --subject tasks.heavy --import myapp.tasks --processes 4
  genro-nats worker --subject tasks.io --threads 16 --url nats://nats.example:4222 --user app
  genro-nats worker --config workers/worker.toml --log-json
  genro-nats worker --check

SIGTERM or Ctrl-C: take no more calls, finish those in hand within --drain-timeout, leave;
a second one: leave at once. SIGHUP: import the code anew, and replace the children one by
one, with no call lost; if it can't be imported the old ones go on. Exit codes: 0 drained,
1 calls were left, or children could not be started, 2 bad usage. Passwords and tokens come from GENRO_NATS_PASSWORD and
GENRO_NATS_TOKEN or from files, for arguments are seen by every user of a machine.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument("--config", metavar="FILE", help="TOML file with [worker] and [pools.<name>]")
    add_settings(parser.add_argument_group("pools"), POOL)
    add_settings(parser.add_argument_group("worker"), WORKER)
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="leave when standard input ends too, for a worker that belongs to another program",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="ask this user's workers on this machine whether they serve (with --subject: those of it), "
        "and leave: 0 if all do, 1 if one does not or there is none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve; the exit code."""
    if sys.platform == "win32":
        raise ConfigurationError("Workers run on Linux and macOS; on Windows a program can call them.")
    if arguments.check:
        from genro_nats.cli.check import check

        return check(getattr(arguments, "subject", []))
    # Imported here, for a check is made every few seconds, and NATS is slow to import.
    from genro_nats.cli.search_path import set_up_path
    from genro_nats.cli.worker_plan import worker_plan

    plan = worker_plan(arguments)
    if arguments.until_stdin_closes:
        _require_pipe()
    set_up_logging(plan.log_level, as_json=plan.log_json)
    set_up_path(plan.path)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Serving(plan, until_stdin=arguments.until_stdin_closes).run())


def _require_pipe() -> None:
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
        raise ConfigurationError("--until-stdin-closes needs a pipe, socket or terminal as standard input.")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class _Serving:
    """One run of a worker, and what signals do to it."""

    def __init__(self, plan: WorkerPlan, *, until_stdin: bool) -> None:
        self._plan = plan
        self._until_stdin = until_stdin
        self._events = Events([self._observe])
        self._ready = False
        self._stopping = False
        self._terminal = _has_terminal()

    async def run(self) -> int:
        from genro_nats.worker.agent import WorkerAgent
        from genro_nats.worker.health import answering

        plan = self._plan
        self._warn_if_unsigned()
        self._agent = WorkerAgent(
            plan.pools,
            plan.connection,
            drain_timeout=plan.drain_timeout,
            events=self._events,
            code_version=plan.code_version,
        )
        self._task = asyncio.ensure_future(self._agent.run())
        self._listen()
        try:
            async with answering(self._agent, self._events):
                return await self._task
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            self._events("worker.drained", left=0)  # it had not begun to take calls
            return 0
        except Exception as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> int:
        """What kept it from serving goes to the log, the child's traceback with it."""
        what = "go on" if self._ready else "start"
        if isinstance(error, ExecutorError):
            log.error("the worker can't %s: %s", what, error)
        else:
            log.error("the worker can't %s: %r", what, error, exc_info=error)
        return 1

    def _warn_if_unsigned(self) -> None:
        from genro_nats.transport.address import Address
        from genro_nats.transport.guard import has_keys

        if not has_keys(self._plan.connection) and not Address(self._plan.connection).secured:
            self._events("worker.unsigned", warning=_UNSIGNED)

    def _observe(self, name: str, facts: dict[str, Any]) -> None:
        self._ready = self._ready or name == "worker.ready"

    # -- leaving ------------------------------------------------------------

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        if self._until_stdin:
            loop.add_reader(sys.stdin.fileno(), self._stdin_readable)

    def _hang_up(self) -> None:
        """Somebody asks for new children; or the terminal is gone, and with it who started us."""
        if self._terminal and not _has_terminal():
            self._stop()
        else:
            self._agent.renew()

    def _stop(self) -> None:
        self._stopping = True
        self._agent.stop()
        if not self._ready:
            self._task.cancel()

    def _stdin_readable(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop()
