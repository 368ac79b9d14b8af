"""Which variables make a function large, for the warning about it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Final

from genro_nats.codec.by_value import pickled
from genro_nats.codec.closure import LARGE
from genro_nats.codec.variables import variables
from genro_nats.errors import CodecError

__all__ = ["large_variables"]

_NAMED: Final = 3


def large_variables(function: Callable[..., Any], module: str = "") -> dict[str, int]:
    """The variables of a function, and of functions it names, that take more than 1 MB; their bytes.

    Each of them alone; where none does, the largest of those that do together.
    """
    sizes = {name: _size(value, module) for name, value in variables(function, module)}
    found = {name: size for name, size in sizes.items() if size > LARGE}
    if not found and sum(sizes.values()) > LARGE:
        found = dict(sorted(sizes.items(), key=lambda item: -item[1])[:_NAMED])
    return found


def _size(x: Any, module: str) -> int:
    if isinstance(x, types.ModuleType):
        return 0
    if isinstance(x, bytes | str | bytearray):
        return len(x)
    try:
        body, buffers = pickled(x, type(x).__qualname__, module)
    except CodecError:
        return 0
    return len(body) + sum(memoryview(buffer).nbytes for buffer in buffers)
