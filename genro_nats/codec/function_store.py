"""A caller's functions by value: pickled when first called, and again when something in them has changed."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from genro_nats.codec.by_value import FunctionBlob, pickled
from genro_nats.codec.closure import LARGE, Trace, trace
from genro_nats.codec.functions import label
from genro_nats.codec.large_variables import large_variables
from genro_nats.codec.lru import ByteLRU

__all__ = ["FunctionStore", "module_of"]

_LEAST: Final = 1024  # bytes that an entry counts for: what it holds beside the pickle


class _Entry(NamedTuple):
    function: weakref.ref[Callable[..., Any]]
    stated: bool
    trace: Trace
    blob: FunctionBlob


class FunctionStore:
    """Keeps ``limit`` bytes of pickled functions, and finds those of calls that are out in any case.

    For one thread.
    """

    def __init__(self, limit: int) -> None:
        self._known: ByteLRU[int, _Entry] = ByteLRU(limit)
        self._blobs: WeakValueDictionary[bytes, FunctionBlob] = WeakValueDictionary()
        self._ended: deque[int] = deque()
        self._warned: WeakSet[Any] = WeakSet()

    def blob(self, function: Callable[..., Any], *, stated: bool = False) -> FunctionBlob:
        """The function's bytes as it is now; who calls holds them as long as somebody may fetch them.

        ``stated``: by value was asked for, so what it uses of its own module goes with it.
        Raises CodecError.
        """
        return self.current(function, stated) or self._pickled(function, stated)

    def current(self, function: Callable[..., Any], stated: bool) -> FunctionBlob | None:
        """The same, if it was pickled before and nothing in it has changed."""
        if self._ended:
            self._bury()
        entry = self._known.get(id(function))
        if entry is None:
            return None
        alive, was_stated, state, blob = entry
        return blob if alive() is function and was_stated is stated and state.holds(function) else None

    def find(self, digest: bytes) -> FunctionBlob | None:
        """A function that is kept, or in the hands of a call."""
        return self._blobs.get(digest)

    def _pickled(self, function: Callable[..., Any], stated: bool) -> FunctionBlob:
        module = module_of(function) if stated else ""
        before = trace(function, module)  # first: what changes meanwhile is seen the next time
        made = FunctionBlob(*pickled(function, label(function), module))
        blob = self._blobs.setdefault(made.digest, made)
        self._known.pop(id(function))
        if before is not None:
            self._keep(function, stated, before, blob)
        if blob.size > LARGE:
            self._warn(function, module)
        return blob

    def _keep(self, function: Callable[..., Any], stated: bool, state: Trace, blob: FunctionBlob) -> None:
        key, ended = id(function), self._ended
        try:
            alive = weakref.ref(function, lambda _: ended.append(key))
        except TypeError:  # it would be another one each time
            return
        self._known.put(key, _Entry(alive, stated, state, blob), max(blob.size, _LEAST))

    def _bury(self) -> None:
        """Drop what belongs to functions that are no more. (Their last moment may be any moment at all.)"""
        while self._ended:
            key = self._ended.popleft()
            entry = self._known.get(key)
            if entry is not None and entry.function() is None:
                self._known.pop(key)

    def _warn(self, function: Callable[..., Any], module: str) -> None:
        # A function made anew by each call of another one is the same function to who reads the warning.
        what = getattr(function, "__code__", type(function))
        if what in self._warned:
            return
        self._warned.add(what)
        found = large_variables(function, module)
        if found:
            shown = ", ".join(f"{name!r} ({size:,} bytes)" for name, size in found.items())
            once = (
                "is sent anew when the variable is bound anew; a change inside of it is not seen. Pass it as an "
                "argument if it changes."
                if max(found.values()) > LARGE
                else "again when one of them changes. Pass what changes as an argument."
            )
            filename, line = _place(function)
            warnings.warn_explicit(
                f"The function {label(function)} is sent by value with {shown} in its closure or globals. That goes "
                f"to each worker once, and {once}",
                UserWarning,
                filename,
                line,
                module=module_of(function),
            )


def _place(function: Any) -> tuple[str, int]:
    """Where it is defined: the call's own line may be on the stack of another thread."""
    for part in ("func", "__wrapped__"):  # of a partial, a cached function
        while not hasattr(function, "__code__") and hasattr(function, part):
            function = getattr(function, part)
    for found in (function, type(function).__call__):
        code = getattr(found, "__code__", None)
        if code is not None:
            return code.co_filename, code.co_firstlineno
    return _first_line_outside()


def _first_line_outside() -> tuple[str, int]:
    """The innermost line that is being executed and is none of this package."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("genro_nats."):
        frame = frame.f_back
    return ("sys", 1) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def module_of(function: Callable[..., Any]) -> str:
    """The module where it, or its class, was defined."""
    return getattr(function, "__module__", None) or type(function).__module__
