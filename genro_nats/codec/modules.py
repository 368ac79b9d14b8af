"""Modules whose functions and classes go by value: the main program, and those registered with cloudpickle."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import cloudpickle

__all__ = ["MAIN", "SPAWNED_MAIN", "as_by_value", "by_value_modules", "is_by_value", "is_main"]

SPAWNED_MAIN: Final = "__mp_main__"  # what multiprocessing calls the main program in processes that it spawns
MAIN: Final = ("__main__", SPAWNED_MAIN)
_registry: Final = threading.RLock()  # of cloudpickle, which has one for the process and none of its own


def is_main(module: Any) -> bool:
    """Is this the name of the main program, which is another one in every process?"""
    return module in MAIN


def by_value_modules() -> set[str]:
    """Modules that the user registered with ``cloudpickle.register_pickle_by_value``."""
    return cloudpickle.list_registry_pickle_by_value()  # type: ignore[no-any-return]


def is_by_value(module: str) -> bool:
    """Is it the main program, or a module that is registered so, or in a package that is?

    What ``as_by_value`` does in another thread does not count.
    """
    return is_main(module) or _is_registered(module)


def _is_registered(module: str) -> bool:
    with _registry:
        registered = by_value_modules()
    while registered and module:
        if module in registered:
            return True
        module = module.rpartition(".")[0]
    return False


@contextmanager
def as_by_value(module: str) -> Iterator[None]:
    """What lives in this module is pickled by value meanwhile; "" and what is no module: nothing more is."""
    if not module or module == "__main__" or module not in sys.modules:  # cloudpickle knows that one itself
        yield
        return
    # Two threads at it would end each other's registration. Who pickles elsewhere meanwhile may send more
    # by value than it had to, which is no harm.
    with _registry:
        if _is_registered(module):
            yield
            return
        cloudpickle.register_pickle_by_value(sys.modules[module])
        try:
            yield
        finally:
            cloudpickle.unregister_pickle_by_value(sys.modules[module])
