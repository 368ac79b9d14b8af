"""The functions that a worker of registered functions runs, and the context variables it lets be set.

Registered is what stands decorated by a pool in any module that is imported, and what
``allow`` lists: ``module:name``, or ``module:*`` for all that the module itself
defines. Which modules are imported is the worker's configuration, never a message.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import Any, Final

from genro_nats.codec.codecs import Codecs
from genro_nats.codec.functions import FunctionCache, is_decorated, label, resolve, unwrap
from genro_nats.codec.loaded import MISSING, is_class, loaded
from genro_nats.errors import ConfigurationError, DecodeError, NotAllowedError

__all__ = ["RegisteredFunctions", "require_listed"]

_MAX_NAME: Final = 200  # characters of a refused name that are shown
_MODULE: Final = vars(type)["__module__"]
_DICT: Final = vars(type)["__dict__"]


def require_listed(allow: Iterable[str]) -> None:
    """Does all that is listed stand in its module, which is imported by now?

    Raises:
        ConfigurationError: something does not.
    """
    for entry in allow:
        if not entry.endswith(":*") and loaded(entry) is MISSING:
            raise ConfigurationError(
                f"allow lists {entry!r}, and there is no such name in that module.", option="allow"
            )


class RegisteredFunctions(FunctionCache):
    """In place of the cache of a child that takes any function.

    ``initial``: "module:name" of what the child's own parent lets it run first, before any message's call.
    """

    def __init__(self, allow: Sequence[str] = (), initial: str = "") -> None:
        super().__init__()
        self.codecs = Codecs(only_data=True, whose="this worker")
        self.strict = True
        self._allow = tuple(allow)
        self._initial_name = initial
        self._initial = True
        self._names: dict[str, Callable[..., Any]] = {}
        self._variables: set[ContextVar[Any]] = set()
        self._modules = 0

    def get(self, name: bytes, blob: bytes | None, at: str = "") -> Callable[..., Any]:
        """The function of that name. Raises NotAllowedError for one that is not registered."""
        initial, self._initial = self._initial, False
        shown = name.decode(errors="replace")
        if blob is not None:
            raise _refused(shown, "by_value", "came with its own code")
        if initial and shown == self._initial_name:
            return resolve(shown)
        found = self._find(shown) or (self._find(at) if at else None)
        if found is None:
            raise _refused(shown, "function", "is not registered there")
        return found

    def require_carried(self, carried: Any) -> None:
        """Are these variables that may be set? Raises NotAllowedError or DecodeError."""
        if not isinstance(carried, list):
            raise DecodeError("A call's carried variables are not packed as expected.")
        for pair in carried:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise DecodeError("A call's carried variables are not packed as expected.")
            self._look()
            variable = loaded(pair[0])
            if type(variable) is not ContextVar or variable not in self._variables:
                raise NotAllowedError(
                    f"The context variable {pair[0][:_MAX_NAME]!r} may not be set on this worker "
                    "(--only-registered): state it in carry= of the pool that decorates a registered function "
                    "there, or list it with --allow.",
                    reason="context",
                )

    def _find(self, name: str) -> Callable[..., Any] | None:
        found = self._names.get(name)
        if found is None and self._look():
            found = self._names.get(name)
        return found

    def _look(self) -> bool:
        """Read the modules, if others are imported than at the last look; were they read?"""
        if self._modules == len(sys.modules):
            return False
        self._modules = len(sys.modules)
        for module in list(sys.modules.values()):
            for value in _values(module):
                if is_decorated(value):
                    self._decorated(value)
        for entry in self._allow:
            if entry.endswith(":*"):
                for found in _own(sys.modules.get(entry[:-2])):
                    self._listed("", found)
            else:
                self._listed(entry, loaded(entry))
        return True

    def _decorated(self, function: Any) -> None:
        plain = unwrap(function)
        for name in (label(plain), function.name, *function.aliases):
            self._names.setdefault(name, plain)
        options = getattr(function.executor, "options", None)
        self._variables.update(getattr(options, "carry", ()))

    def _listed(self, name: str, found: Any) -> None:
        if isinstance(found, ContextVar):
            self._variables.add(found)
        elif callable(found):
            plain = unwrap(found)
            self._names[name or label(plain)] = plain


def _values(module: Any) -> Iterator[Any]:
    """What stands in a module, and in the classes it defines."""
    if not issubclass(type(module), ModuleType):
        return
    for value in list(vars(module).values()):
        yield value
        # Past a metaclass: it may answer with anything, and one odd class would hide all functions.
        if is_class(value) and _MODULE.__get__(value) == module.__name__:
            yield from list(_DICT.__get__(value).values())


def _own(module: ModuleType | None) -> Iterator[Any]:
    """The functions and context variables that a module itself defines."""
    for value in [] if module is None else list(vars(module).values()):
        plain = unwrap(value) if is_decorated(value) else value
        kind = type(plain)
        if kind is ContextVar or (kind is FunctionType and plain.__module__ == module.__name__):  # type: ignore[union-attr]
            yield plain


def _refused(name: str, reason: str, why: str) -> NotAllowedError:
    return NotAllowedError(
        f"The worker runs registered functions only (--only-registered), and {name[:_MAX_NAME]} {why}. Decorate it "
        "with a pool in a module that the worker imports (--import), or list it: "
        f"--allow {name[:_MAX_NAME] if ':' in name else 'module:name'}",
        reason=reason,
        function=name[:_MAX_NAME],
    )
