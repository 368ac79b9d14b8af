"""A StopAsyncIteration that a function raises is an error, and must not look like the end of what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["false_end", "no_false_end"]


def false_end(error: StopAsyncIteration) -> RuntimeError:
    """What async generators make of one that is raised within them (PEP 479, PEP 525)."""
    found = RuntimeError("the function raised StopAsyncIteration")
    found.__cause__ = error
    return found


@contextmanager
def no_false_end() -> Iterator[None]:
    """Around what runs a function, or raises what one has raised."""
    try:
        yield
    except StopAsyncIteration as error:
        raise false_end(error) from error
