"""``genro-nats demo``: one real job, locally, over NATS and as a durable task, and children killed on the way."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Final

from genro_nats.cli.demo_run import Outcome, run_job, standard_library
from genro_nats.cli.demo_show import RichShow, Show, SilentShow
from genro_nats.cli.demo_stage import SUBJECT, Stage, stage
from genro_nats.cli.demo_task import TaskOutcome, run_task
from genro_nats.config.options import MAX_WORKERS
from genro_nats.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

_EPILOG: Final = """\
It parses, measures and compresses every module of this Python's standard library:
first in a local process pool; then, with the same code and another configuration, on
a worker behind a NATS server that it starts; then so again, while a child of the worker
is killed with SIGKILL; last, some of the modules as one durable task, whose child is killed
too: it is run again from its checkpoint. All must come to the same digest, else the exit
code is 1.

examples:
  genro-nats demo
  genro-nats demo --processes 4 --json
"""

Modules = Sequence[tuple[str, bytes]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--processes", type=int, default=2, metavar="N", help="children of each pool; default 2"
    )
    parser.add_argument(
        "--modules", type=int, default=None, metavar="N", help="measure only the first N modules; default all"
    )
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run all of it; 0 if the digests are equal and two children were killed, else 1.

    Raises:
        ConfigurationError: Rich or nats-server is missing.
        ExecutorError: the server or the worker could not be started.
    """
    if not 1 <= arguments.processes <= MAX_WORKERS:
        raise ConfigurationError(f"--processes is {arguments.processes}: use 1 to {MAX_WORKERS}.")
    if arguments.modules is not None and arguments.modules < 1:
        raise ConfigurationError(f"--modules is {arguments.modules}: use 1 or more.")
    show: Show = SilentShow() if arguments.json else RichShow()
    signal.signal(signal.SIGTERM, _interrupt)
    modules = standard_library()[: arguments.modules]
    size = sum(len(source) for _, source in modules) / 1e6
    show.say(f"{len(modules):,} modules, {size:.1f} MB: parse, measure and compress each of them.")
    with stage(arguments.processes) as up:
        demo = _Demo(up, modules, arguments.processes, show)
        asyncio.run(demo.run())
    return demo.report(as_json=arguments.json)


def _interrupt(*_: object) -> None:
    """One way to end early: as with Ctrl-C, everything is cleaned up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's background job
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGINT)


class _Demo:
    """The three runs and the task, and what came out."""

    def __init__(self, up: Stage, modules: Modules, processes: int, show: Show) -> None:
        self._up = up
        self._modules = modules
        self._processes = processes
        self._show = show
        self._killed: int | None = None
        self._outcomes: dict[str, Outcome] = {}
        self._task: TaskOutcome | None = None

    async def run(self) -> None:
        """Run the job three times, and once more as a task."""
        say = self._show.say
        say("\n1. In a local pool (local.toml)")
        await self._once("local", "local")
        say(f"\n2. The same code, configured to call a worker (remote.toml): {self._server()}")
        await self._once("remote", "remote")
        say("\n3. Over NATS again, and one child of the worker is killed on the way")
        await self._once("killed", "remote", self._kill)
        self._tell_losses()
        say("\n4. Some of it as one durable task, and its child is killed on the way")
        await self._durably()

    async def _durably(self) -> None:
        names = [name for name, _ in self._modules]
        with self._show.task() as told:
            self._task = task = await run_task(
                self._up.registry("remote"), self._outcomes["local"], names, told
            )
        say = self._show.say
        say(f"  task {task.id}: {task.state} in attempt {task.attempts}")
        if task.killed_pid is not None and len(task.resumed_at) > 1:
            say(f"  child {task.killed_pid} was killed by SIGKILL; child {task.pids[-1]} went on from the")
            say(f"  checkpoint, with {task.resumed_at[-1]} modules measured; nobody had to ask for that")
        say(f"  digest {task.digest}, {'as' if task.equal else 'NOT AS'} in run 1 of the same modules")

    def _server(self) -> str:
        return f"{self._up.server.url}, subject {SUBJECT}, worker pid {self._up.worker.pid}"

    async def _once(
        self, name: str, where: str, also: Callable[[Outcome], object] = lambda outcome: None
    ) -> None:
        with self._show.running(f"   {name}", len(self._modules)) as told:

            def heard(outcome: Outcome) -> None:
                told(outcome)
                also(outcome)

            outcome = await run_job(self._up.registry(where), self._modules, self._processes, heard)
        self._outcomes[name] = outcome
        self._show.outcome(outcome)

    # -- the kill -----------------------------------------------------------

    def _kill(self, outcome: Outcome) -> None:
        """With a third of the results here, end the child that sent the latest, wherever it is now."""
        if self._killed is None and len(outcome.results) * 3 >= len(self._modules):
            self._killed = outcome.results[-1].pid
            os.kill(self._killed, signal.SIGKILL)

    def _tell_losses(self) -> None:
        outcome, say = self._outcomes["killed"], self._show.say
        say(f"  child {self._killed} was killed by SIGKILL; a fresh one took its place")
        for lost in outcome.lost:
            say(f"  WorkerLostError for {lost.module}: {lost.error}")
        died = len(outcome.lost)
        how = "call died with it, raised, and was" if died == 1 else "calls died with it, raised, and were"
        say(f"  {died} {how} made again by the demo's own choice" if died else "  it was between two calls")

    # -- the end ------------------------------------------------------------

    def report(self, *, as_json: bool) -> int:
        """Say how it went; the exit code."""
        digests = {outcome.digest for outcome in self._outcomes.values()}
        complete = all(len(outcome.results) == len(self._modules) for outcome in self._outcomes.values())
        lasted = self._task is not None and self._task.good
        good = len(digests) == 1 and complete and self._killed is not None and lasted
        if as_json:
            facts = {"equal": good, "modules": len(self._modules), "killed_pid": self._killed}
            runs = {name: outcome.as_dict() for name, outcome in self._outcomes.items()}
            task = {"task": self._task.as_dict() if self._task else None}
            print(json.dumps(facts | runs | task))
        else:
            verdict = (
                "All digests are equal: nothing was lost."
                if good
                else "THAT IS NOT AS IT SHOULD BE: the digests differ, or a kill missed."
            )
            self._show.say(f"\n{verdict}")
        return 0 if good else 1
