"""The context variables that travel with a call, by the name under which a module holds them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from genro_nats.codec.modules import is_main
from genro_nats.errors import ConfigurationError

__all__ = ["Carrier", "home_of"]


def home_of(variable: ContextVar[Any]) -> str:
    """``module:attribute`` of a context variable.

    Raises:
        ConfigurationError: no imported module holds it, so no other process could find it.
    """
    for name, module in list(sys.modules.items()):
        if is_main(name):
            continue  # over there it is another module
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return f"{name}:{attribute}"
    raise ConfigurationError(
        f"The context variable {variable.name!r} in carry= stands in no importable module: define it at the "
        "top of a module other than the main program, where workers can import it.",
        option="carry",
    )


class Carrier:
    """Reads the variables of a pool's ``carry`` option; finds their names at the first call."""

    def __init__(self, variables: Sequence[ContextVar[Any]]) -> None:
        self._variables = variables
        self._named: list[tuple[str, ContextVar[Any]]] | None = None

    def read(self) -> list[tuple[str, Any]]:
        """The variables that are set here, by name. Raises ConfigurationError as ``home_of``."""
        if self._named is None:
            self._named = [(home_of(variable), variable) for variable in self._variables]
        unset = object()
        values = [(name, variable.get(unset)) for name, variable in self._named]
        return [(name, value) for name, value in values if value is not unset]
