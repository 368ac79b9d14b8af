"""What values an option may take: small rules, each with the words that explain it."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from genro_nats.config.units import parse_duration, parse_size
from genro_nats.config.urls import ALLOWED_URLS, parse_urls

__all__ = [
    "Rule",
    "choice",
    "context_vars",
    "flag",
    "initializer",
    "modules",
    "names",
    "observer",
    "optional",
    "path",
    "seconds",
    "sequence",
    "size",
    "subject",
    "text",
    "urls",
    "whole",
]

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)
_YEAR: Final = 365 * 86_400
# nats-server cuts the connection over a protocol line of 4096 bytes; prefix, subject and reply share it.
_SUBJECT_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Rule:
    """`parse` returns the value in its final form, or raises ValueError or TypeError.

    `allowed` completes "use ..." in an error message. Parsing a parsed value changes nothing.
    """

    allowed: str
    parse: Callable[[Any], Any]


def optional(rule: Rule) -> Rule:
    """The same rule, None allowed."""
    return Rule(f"{rule.allowed}, or None", lambda value: None if value is None else rule.parse(value))


def whole(low: int, high: int) -> Rule:
    """A whole number between `low` and `high`, both allowed."""

    def parse(value: Any) -> int:
        return _within(operator.index(_require(value, not isinstance(value, bool))), low, high)

    return Rule(f"a whole number from {low:,} to {high:,}", parse)


def seconds(*, zero: bool = False) -> Rule:
    """A duration in seconds of at most a year; `zero` says whether 0 is allowed."""

    def parse(value: Any) -> float:
        duration = _within(parse_duration(value), 0, _YEAR)
        return _require(duration, zero or duration > 0)

    least = "from 0" if zero else "over 0"
    return Rule(f"seconds {least} to {_YEAR:,} (365 days), or text such as '30s' or '5m'", parse)


def size(low: int) -> Rule:
    """A number of bytes, at least `low`."""
    return Rule(
        f"bytes, at least {low:,}, or text such as '512MB' or '1.5 GiB'",
        lambda value: _within(parse_size(value), low, 2**63 - 1),
    )


def choice(*words: str) -> Rule:
    """One of `words`."""
    return Rule(
        " or ".join(repr(word) for word in words),
        lambda value: _require(value, isinstance(value, str) and value in words),
    )


def flag() -> Rule:
    """True or False, nothing that merely looks like it."""
    return Rule("True or False", lambda value: _require(value, isinstance(value, bool)))


def text() -> Rule:
    """Text with at least one character."""
    return Rule(
        "text that isn't empty", lambda value: _require(value, isinstance(value, str) and value != "")
    )


def path() -> Rule:
    """A file's path, ``~`` expanded; whether the file exists is seen when it is read."""

    def parse(value: Any) -> str:
        name: str = os.fspath(value)
        _require(name, isinstance(name, str) and name != "" and "\0" not in name)
        return os.path.expanduser(name)  # noqa: PTH111 - Path's raises for a user there isn't

    return Rule("the path of a file", parse)


def subject(*, first: bool = False) -> Rule:
    """NATS subject tokens without wildcards; `first`: they begin the subject, so not a reserved one."""

    def parse(value: Any) -> str:
        name: str = _require(value, isinstance(value, str))
        _require(name, all(map(_is_token, name.split("."))) and len(name.encode()) <= _SUBJECT_BYTES)
        return _require(name, not (first and name.startswith(("$", "_INBOX"))))

    reserved = ", not beginning with '$' or '_INBOX'" if first else ""
    return Rule(
        f"words separated by single dots, without blanks, '*' and '>', "
        f"of at most {_SUBJECT_BYTES} bytes{reserved}",
        parse,
    )


def urls() -> Rule:
    """Addresses of NATS servers."""
    return Rule(ALLOWED_URLS, parse_urls)


def initializer() -> Rule:
    """A callable, or where to import one."""
    return Rule(
        "a callable or text of the form 'package.module:function'",
        lambda value: _require(value, callable(value) or _is_import(value)),
    )


def modules() -> Rule:
    """Names of modules, in a list or separated by commas."""

    def parse(value: Any) -> tuple[str, ...]:
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else _items(value)
        return tuple(_require(name, _is_dotted(name)) for name in names)

    return Rule("names of modules, in a list or separated by commas", parse)


def names() -> Rule:
    """``module:name`` or ``module:*``, in a list or separated by commas."""

    def parse(value: Any) -> tuple[str, ...]:
        found = [name.strip() for name in value.split(",")] if isinstance(value, str) else _items(value)
        return tuple(_require(name, _is_import(str(name).replace(":*", ":all"))) for name in found)

    return Rule("'package.module:name' or 'package.module:*', in a list or separated by commas", parse)


def sequence() -> Rule:
    """A list or tuple of anything."""
    return Rule("a tuple or list", lambda value: tuple(_items(value)))


def context_vars() -> Rule:
    """Context variables; they are objects, so only code can name them."""

    def parse(value: Any) -> tuple[Any, ...]:
        return tuple(_require(item, isinstance(item, ContextVar)) for item in _items(value))

    return Rule("a tuple or list of contextvars.ContextVar objects (from code only)", parse)


def observer() -> Rule:
    """Any object; plain data can only come from a file that can't say what was meant."""
    plain = (str, bytes, int, float, Mapping)
    return Rule(
        "an object that takes events (from code only)",
        lambda value: _require(value, not isinstance(value, plain)),
    )


def _require(value: _T, fits: bool) -> _T:
    if not fits:
        raise ValueError
    return value


def _within(value: _N, low: int, high: int) -> _N:
    return _require(value, low <= value <= high)


def _items(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return value


def _is_token(token: str) -> bool:
    return token.isprintable() and re.fullmatch(r"[^\s*>]+", token) is not None


def _is_dotted(name: Any) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def _is_import(value: Any) -> bool:
    return isinstance(value, str) and value.count(":") == 1 and all(map(_is_dotted, value.split(":")))
