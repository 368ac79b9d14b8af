"""The entry of the command ``genro-nats``: find the subcommand, run it, turn errors into exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from genro_nats.cli.arguments import CommandParser
from genro_nats.errors import ConfigurationError, ExecutorError

__all__ = ["DEBUG", "main"]

DEBUG: Final = "GENRO_NATS_DEBUG"
_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130  # 128 and SIGINT, as shells have it
_COMMANDS: Final = {
    "worker": "serve calls from NATS with processes of this machine",
    "tasks": "list a pool's durable tasks",
    "task": "show one of them, watch it, or print its result",
    "cancel": "end one of them, whatever its state",
    "retry": "run a failed one again, from its dead letter",
    "dead": "list, replay or drop what failed for good",
    "schedules": "list or remove recurring tasks",
    "workers": "list the workers: what each serves, how busy it is, what went wrong last",
    "pools": "list the pools: their workers, busy slots, queued calls and tasks",
    "top": "the same, live, with calls per second",
    "drain": "tell workers to finish what they have and leave",
    "server": "run the embedded nats-server in the foreground",
    "auth": "write a nats-server configuration with a key and permissions for each role",
    "demo": "run one real job locally, over NATS and as a task, and kill children on the way",
    "bench": "measure what calls, tasks, payloads and fleets cost here, beside bare nats-py and other pools",
}
_NESTED: Final = {
    "auth key": "make a shared key that signs messages",
}
_EXAMPLES: Final = """\
examples:
  genro-nats demo
  genro-nats server
  genro-nats worker --url embedded --subject tasks.heavy --import myapp.tasks
  genro-nats worker --config workers/worker.toml
  genro-nats tasks --subject tasks.heavy --state failed
  genro-nats workers

A command's own help: genro-nats worker --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of this process); the exit code.

    0: done; 1: it failed; 2: bad usage or configuration; 130: interrupted by Ctrl-C.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except SystemExit as leaving:  # --help and --version
        return leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; what Python flushes at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except ConfigurationError as error:
        return _told(error, _USAGE)
    except ExecutorError as error:
        return _told(error, _FAILED)


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    words = 2 if " ".join(argv[:2]) in _NESTED else 1
    name = " ".join(argv[:words])
    if about := {**_COMMANDS, **_NESTED}.get(name):
        run: Callable[[argparse.Namespace], int]
        command = import_module(f"genro_nats.cli.{name.replace(' ', '_')}")
        run, own = command.run, CommandParser(prog=f"genro-nats {name}", description=about)
        command.add_arguments(own)
        return run(own.parse_args(argv[words:]))
    parser.parse_args(argv[:1] or ["--help"])
    raise AssertionError("unreachable: the parser leaves or raises")


def _parser() -> CommandParser:
    commands = "\n".join(f"  {name:9} {text}" for name, text in {**_COMMANDS, **_NESTED}.items())
    parser = CommandParser(
        prog="genro-nats",
        usage="genro-nats [--help] [--version] COMMAND ...",
        description="One call, anywhere: inline, on a thread, in a process, or on workers behind NATS.",
        epilog=f"commands:\n{commands}\n\n{_EXAMPLES}",
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_command(_COMMANDS)
    return parser


def _version() -> str:
    from genro_nats import __version__

    return f"genro-nats {__version__} (Python {sys.version.split()[0]})"


def _told(error: ExecutorError, code: int) -> int:
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error)
    else:
        print(f"genro-nats: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
