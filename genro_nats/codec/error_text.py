"""What can be said of any exception: its type's name, its text, its traceback. None of these ever raises.

A class may put anything in the place of what exceptions have: properties that raise, names that are
no texts. What belongs to each exception is read past that; what the class itself has to say
(``__str__``) may fail.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterable
from typing import Any, Final

__all__ = [
    "BUILTIN",
    "MAX_TEXT",
    "attribute",
    "bases",
    "plain",
    "qualname",
    "shortened",
    "text_of",
    "traceback_of",
    "type_name",
]

MAX_TEXT: Final = 64 * 1024  # characters of a text or traceback; the middle is left out

BUILTIN: Final = frozenset(
    kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)
)
_MAX_NAME: Final = 1000  # characters
_SHOWN: Final = (  # what formatting a traceback asks an exception for
    "__cause__",
    "__context__",
    "__suppress_context__",
    "__traceback__",
    "__notes__",
    "__class__",
    "__getattribute__",
    "exceptions",
)


def attribute(error: BaseException, name: str, of: type[BaseException] = BaseException) -> Any:
    """What a built-in base keeps there, whatever the exception's class has put in its place."""
    return vars(of)[name].__get__(error)


def bases(kind: type) -> tuple[type, ...]:
    """The class and its bases, the most special first."""
    return vars(type)["__mro__"].__get__(kind)  # type: ignore[no-any-return]


def type_name(kind: type) -> str:
    """``module:qualname`` of a class."""
    return f"{_stated(kind, '__module__')}:{qualname(kind)}"


def qualname(kind: type) -> str:
    """The qualified name of a class."""
    return _stated(kind, "__qualname__")


def _stated(kind: type, name: str) -> str:
    try:
        return plain(vars(type)[name].__get__(kind))[:_MAX_NAME]
    except Exception:
        return "?"  # it is no text


def plain(text: str) -> str:
    """The text as a ``str`` and no subclass. A lone surrogate would make a whole reply unencodable."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def text_of(error: BaseException) -> str:
    """The text of an exception."""
    try:
        return plain(str(error))
    except BaseException as broken:
        return f"<str() of this {qualname(type(error))} raised {qualname(type(broken))}>"


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """A text without its middle where it is longer than so many characters."""
    text = plain(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - limit} characters left out ...]\n{text[-half:]}"


def traceback_of(error: BaseException, chain: Iterable[BaseException] = ()) -> str:
    """The formatted traceback of an exception and its ``chain``.

    Of the exception alone, where a class of the chain says itself what belongs to it: that
    could raise, or have no end.
    """
    try:
        if not any(map(_speaks_for_itself, {type(one) for one in (error, *chain)})):
            return plain("".join(traceback.format_exception(error)))
    except BaseException:  # noqa: S110
        pass
    return _alone(error)


def _speaks_for_itself(kind: type) -> bool:
    return any(name in vars(base) for base in bases(kind) if _is_foreign(base) for name in _SHOWN)


def _is_foreign(base: type) -> bool:
    return base not in BUILTIN and base is not object


def _alone(error: BaseException) -> str:
    try:
        frames = plain("".join(traceback.format_tb(attribute(error, "__traceback__"))))
    except BaseException:
        frames = "  (its frames can't be shown)\n"
    name = type_name(type(error)).replace(":", ".")
    return f"Traceback (most recent call last):\n{frames}{name}: {text_of(error)}\n"
