"""What stands in the modules that are imported already: found by name, without importing or running anything."""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["MISSING", "is_class", "loaded"]

MISSING: Final = object()


def is_class(value: Any) -> bool:
    """As ``isinstance(value, type)``, which would ask a proxy's ``__class__``."""
    return issubclass(type(value), type)


def loaded(name: str) -> Any:
    """Whatever stands at ``module:qualname``, or MISSING.

    Only dictionaries are looked into: a module's or class's own ``__getattr__`` may import or run code.
    """
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    if found is None or not qualname:
        return MISSING
    for part in qualname.split("."):
        if is_class(found) or found is sys.modules.get(module):
            found = vars(found).get(part, MISSING)
        else:
            return MISSING
    return found
