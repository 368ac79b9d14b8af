"""An argument parser that says "did you mean" and takes no abbreviations."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError

__all__ = ["CommandParser", "quantity"]

_T = TypeVar("_T")


class CommandParser(argparse.ArgumentParser):
    """As ``ArgumentParser``, but what is wrong raises ConfigurationError, in one line."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._commands: Collection[str] = ()

    def add_command(self, commands: Mapping[str, str]) -> None:
        """Take the name of a command; which one is the caller's business."""
        self._commands = commands
        self.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments.

        Raises:
            ConfigurationError: an unknown option or command, or a wrong value.
        """
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}.{self._hint(unknown[0])}")
        command = getattr(found, "command", None)
        if self._commands and command not in self._commands:
            hint = did_you_mean(str(command), self._commands)
            self.error(f"unknown command {command!r}.{hint} Commands: {', '.join(self._commands)}.")
        return found

    def error(self, message: str) -> NoReturn:
        """Leave through the exit of all errors."""
        end = "" if message.endswith((".", "?")) else "."
        raise ConfigurationError(f"{message}{end} See: {self.prog} --help")

    def _hint(self, argument: str) -> str:
        word = argument.partition("=")[0]
        if not word.startswith("-"):
            return ""
        return did_you_mean(word, _options(self._actions))


def _options(actions: Sequence[argparse.Action]) -> list[str]:
    return [
        option
        for action in actions
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
        if option.startswith("--")
    ]


def quantity(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """``parse`` (a duration, a size) as a ``type=`` of argparse, with its own words for what is wrong."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ConfigurationError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed
