"""Exceptions whose classes put something else in the place of what every exception has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, NoReturn

from genro_nats import RemoteError, Retry, current_call


def _raise(*args: object) -> NoReturn:
    raise RuntimeError("hidden")


def _exit(*args: object) -> NoReturn:
    raise SystemExit(3)


class OddText(str):
    encode = __getitem__ = __format__ = __len__ = __str__ = _raise  # type: ignore[assignment]


class OddList(list[str]):
    __iter__ = copy = __len__ = _raise


class WontPickle:
    __reduce__ = __getstate__ = _exit


class Endless(Exception):
    @property
    def __cause__(self) -> Endless:  # type: ignore[override]
        return Endless("another one")


class OddName(Exception):
    pass


OddName.__module__ = 5  # type: ignore[assignment]


class LoneSurrogate(Exception):
    pass


LoneSurrogate.__qualname__ = "\ud800"


class NamesRaise(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__", "__mro__"):
            raise RuntimeError("hidden")
        return super().__getattribute__(name)


class OddClass(Exception, metaclass=NamesRaise):
    pass


def _hiding(name: str, value: Any, base: type[BaseException] = Exception) -> type[BaseException]:
    kind = type(f"Hides_{name.strip('_')}_{len(globals())}", (base,), {name: value})
    globals()[kind.__name__] = kind
    return kind


_HIDDEN: Final = ("args", "__notes__", "__cause__", "__context__", "__traceback__", "__suppress_context__")
KINDS: Final[dict[str, Callable[[], BaseException]]] = {
    **{name: _hiding(name, property(_raise)) for name in _HIDDEN},
    "class": _hiding("__class__", property(_raise)),
    "class-lies": _hiding("__class__", property(lambda self: ExceptionGroup)),
    "dict": _hiding("__dict__", property(_raise)),
    "getattribute": _hiding("__getattribute__", _exit),
    "str": _hiding("__str__", _exit),
    "text": _hiding("__str__", lambda self: OddText("x")),
    "number": _hiding("__repr__", lambda self: 5),
    "bool": _hiding("__bool__", _raise),
    "reduce": _hiding("__reduce__", _exit),
    "getstate": _hiding("__getstate__", _exit),
    "exceptions": lambda: _EXCEPTIONS("g", [ValueError(1)]),
    "message": lambda: _MESSAGE("g", [ValueError(1)]),
    "argument": lambda: ValueError(WontPickle()),
    "state": lambda: _with(ValueError("x"), extra=WontPickle()),
    "notes-list": lambda: _with(ValueError("x"), __notes__=OddList(["a"])),
    "notes-text": lambda: _with(ValueError("x"), __notes__=[OddText("a")]),
    "cause-endless": lambda: Endless("x"),
    "module": OddName,
    "qualname": LoneSurrogate,
    "metaclass": OddClass,
    "long-names": lambda: _long_named(400)("x"),
}
_EXCEPTIONS: Final[Any] = _hiding("exceptions", property(_raise), ExceptionGroup)
_MESSAGE: Final[Any] = _hiding("message", property(_raise), ExceptionGroup)


def _with(error: BaseException, **state: object) -> BaseException:
    error.__dict__.update(state)
    return error


def _long_named(count: int) -> type[BaseException]:
    kind: type[BaseException] = Exception
    for _ in range(count):
        kind = type("x" * 1000, (kind,), {})
    return kind


def arrived(kind: str, found: object) -> bool:
    """Is it what was raised, or the stand-in for it?"""
    return type(found) is RemoteError or type(found) is type(KINDS[kind]())


def fail(kind: str) -> NoReturn:
    raise KINDS[kind]()


async def async_fail(kind: str) -> NoReturn:
    raise KINDS[kind]()


def items(kind: str) -> Iterator[int]:
    yield 1
    raise KINDS[kind]()


async def async_items(kind: str) -> AsyncIterator[int]:
    yield 1
    raise KINDS[kind]()


def twice(number: int) -> int:
    return 2 * number


def unsendable_progress() -> str:
    """Its last progress is held back, and sent when the function has ended."""
    current_call().progress(0.1)
    current_call().progress(0.2, data=WontPickle())
    return "done"


async def async_unsendable_progress() -> str:
    return unsendable_progress()


def ask_again(delay: Any) -> NoReturn:
    raise Retry("later", delay=delay)


def ask_again_oddly() -> str:
    """Ask for what was no number when the exception was raised, once."""
    if current_call().attempt > 1:
        return "done"
    error = Retry("later")
    error.fields["delay"] = WontPickle()
    raise error
