"""Functions on the wire: by name where the receiver can import them, else by value.

A decorated function is found through its module attribute, which is the
wrapper; the wrapper shows the plain function as ``__genro_target__``.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from genro_nats.codec import values
from genro_nats.codec.codecs import Codecs
from genro_nats.codec.frame import MAX_NAME, Frame, FrameKind
from genro_nats.codec.modules import is_by_value
from genro_nats.errors import CodecError, ExecutorError, FunctionNotFoundError

__all__ = [
    "FunctionCache",
    "find_object",
    "goes_by_name",
    "importable",
    "is_decorated",
    "label",
    "not_a_generator",
    "resolve",
    "stable_name",
    "unwrap",
]

TARGET: Final = "__genro_target__"


def unwrap(function: Any) -> Any:
    """The plain function below any number of pools' decorators."""
    while (inner := getattr(function, TARGET, None)) is not None:
        function = inner
    return function


def label(function: Any) -> str:
    """``module:qualname``, for logs and errors."""
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}:{name}"


def goes_by_name(function: Callable[..., Any], by: str | None) -> bool:
    """Is it sent by name? ``by``: "name" or "value"; None: by name where that leads back to it.

    Raises:
        CodecError: by name is wanted, and nobody would find it by that.
    """
    if by == "value":
        return False
    name = label(function)
    found = importable(function, name)
    if by == "name" and not found:
        raise CodecError(
            f"The function {name} can't be sent by name: nobody could import it. Define it at the top of an "
            'importable module (not in the main program, not inside a function), or say by="value".',
            function=name,
        )
    return found


def stable_name(
    function: Callable[..., Any], name: str = "", *, by_value: bool = False, only_named: bool = False
) -> str:
    """The name under which a function is stored: ``name``, or where it stands.

    ``only_named``: it can't be sent by value at all.

    Raises:
        CodecError: nobody who reads it later could find the function, and it is not sent ``by_value``.
    """
    found = label(function)
    if by_value or importable(function, found):
        return name or found
    way = (
        '; a pool with codec="data" stores no function.'
        if only_named
        else ', or say .options(by="value"), or by_value=True, to store the function itself.'
    )
    raise CodecError(
        f"The function {found} can't be a task: a worker that runs it later would not find it. Define it at "
        f"the top of an importable module (not in the main program, not inside a function){way}",
        function=found,
    )


def importable(function: Callable[..., Any], name: str) -> bool:
    """Does ``module:qualname`` lead back to this plain function, here and wherever its module is installed?"""
    module, _, qualname = name.partition(":")
    if "<" in qualname or len(name) > MAX_NAME or module not in sys.modules or is_by_value(module):
        return False
    try:
        return unwrap(_attribute(sys.modules[module], qualname)) is function
    except AttributeError:
        return False


def _attribute(found: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def find_object(name: str) -> Any:
    """Whatever stands at ``module:qualname``. Raises ImportError, AttributeError, or what the import raises."""
    module, _, qualname = name.partition(":")
    return _attribute(importlib.import_module(module), qualname)


def resolve(name: str, at: str = "") -> Callable[..., Any]:
    """The plain function of a name, its module imported if need be.

    ``at``: where a function with a stable name of its own stood when it was stored. One that has
    moved or was renamed is found by the ``name`` or ``aliases`` of its decorator, if its module is imported.

    Raises:
        FunctionNotFoundError: no such module or attribute, or it is not callable.
    """
    if not at:
        return _standing(name)
    trouble: FunctionNotFoundError | None = None
    try:
        standing = _standing(at)
    except FunctionNotFoundError as error:
        trouble = error
    if trouble is None and name == at:
        return standing
    found = _registered(name)
    if found is not None:
        return found
    if trouble is None:
        return standing
    raise FunctionNotFoundError(
        f"{trouble} Nor has any imported module a decorated function with name= or aliases= {name!r}: "
        "name its module with --import.",
        function=name,
    ) from trouble


def _registered(name: str) -> Callable[..., Any] | None:
    """The plain function that a decorator gave this name, in any module that is imported."""
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            if is_decorated(value) and (name == value.name or name in value.aliases):
                return unwrap(value)  # type: ignore[no-any-return]
    return None


def is_decorated(value: Any) -> bool:
    """Does it stand for a function of a pool?"""
    # Looking at attributes of whatever stands in modules could run code of theirs.
    room = type(value).__module__  # of some metaclasses a descriptor
    ours = isinstance(room, str) and room.startswith("genro_nats.")
    return ours and TARGET in getattr(value, "__dict__", ())


def _standing(name: str) -> Callable[..., Any]:
    module, colon, qualname = name.partition(":")
    if not colon or not module or not qualname:
        raise FunctionNotFoundError(
            f"{name!r} is no function name; expected 'module:qualname'.", function=name
        )
    try:
        found = unwrap(find_object(name))
    except AttributeError as error:
        raise FunctionNotFoundError(
            f"The module {module!r} was imported on the worker but has no {qualname!r}: "
            "does the worker run an older version of your code?",
            function=name,
        ) from error
    except Exception as error:
        raise FunctionNotFoundError(
            f"The module {module!r} can't be imported on the worker: {type(error).__name__}: {error}. "
            "Install your code there, or start the worker in its directory.",
            function=name,
        ) from error
    if not callable(found):
        raise FunctionNotFoundError(
            f"{name} is a {type(found).__name__}, which can't be called.", function=name
        )
    return found  # type: ignore[no-any-return]


class FunctionCache:
    """The functions a child has resolved or unpickled, the most recently used kept.

    ``codecs``: what the child takes from the wire. ``strict``: registered functions only.
    Those by digest stay as long as the parent wants: see ``obey``.
    """

    def __init__(self, limit: int = 512) -> None:
        self.codecs = Codecs(whose="this worker")
        self.strict = False
        self._limit = limit
        self._known: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()
        self._learned: dict[bytes, _Learned] = {}
        self._opened: dict[bytes, Callable[..., Any]] = {}

    def require_carried(self, carried: Any) -> None:
        """May these context variables be set? Here all may."""

    def get(self, name: bytes, blob: bytes | None, at: str = "") -> Callable[..., Any]:
        """The function of a reference; ``at``: see ``resolve``. Raises FunctionNotFoundError or DecodeError."""
        key = name if blob is None else blob
        found = self._known.get(key)
        if found is None:
            found = resolve(name.decode(errors="replace"), at) if blob is None else values.loads(blob)
            self._known[key] = found
            if len(self._known) > self._limit:
                self._known.popitem(last=False)
        return found

    def obey(self, frame: Frame) -> None:
        """A FUNCTION frame: learn it; a GONE: forget it. Others mean nothing here."""
        if frame.kind == FrameKind.FUNCTION:
            self._learned[bytes.fromhex(frame.name.decode())] = _Learned(frame)
        elif frame.kind == FrameKind.GONE:
            digest = bytes.fromhex(frame.name.decode())
            self._learned.pop(digest, None)
            self._opened.pop(digest, None)

    def by_digest(self, digest: bytes, name: bytes) -> Callable[..., Any]:
        """A function that was learned. Raises FunctionNotFoundError or DecodeError."""
        opened = self._opened.get(digest)
        if opened is not None:
            return opened
        learned = self._learned.get(digest)
        if learned is None:
            label = name.decode(errors="replace")
            raise FunctionNotFoundError(
                f"The function {label}, sent by value, has not reached the child that runs the call.",
                function=label,
            )
        opened = self._opened[digest] = learned.function()
        return opened


class _Learned:
    """A function by value, unpickled when it is first called."""

    def __init__(self, frame: Frame) -> None:
        self._frame: Frame | None = frame
        self._opening = threading.Lock()
        self._function: Callable[..., Any]

    def function(self) -> Callable[..., Any]:
        """The same one for all calls and threads. Raises DecodeError."""
        with self._opening:
            if self._frame is not None:
                self._function = values.loads(self._frame.body, self._frame.buffers)
                self._frame = None
            return self._function


def not_a_generator(produced: Any) -> ExecutorError:
    """The error for ``stream`` of a function that is no generator function, wherever it ran."""
    return ExecutorError(
        f"stream() needs a generator function; this one returned {type(produced).__qualname__}. Use a plain call."
    )
