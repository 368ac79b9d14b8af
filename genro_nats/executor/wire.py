"""Calls to frames, and replies to values: the caller's side of the codec."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from genro_nats.codec.by_value import FunctionBlob, inline_field, pickled
from genro_nats.codec.codecs import Codec, Codecs, codec_named
from genro_nats.codec.frame import MAX_NAME, Buffer, Flag, Frame, FrameKind
from genro_nats.codec.function_store import FunctionStore, module_of
from genro_nats.codec.functions import goes_by_name, label
from genro_nats.codec.modules import by_value_modules
from genro_nats.errors import CodecError
from genro_nats.message import Call, ProgressUpdate, TaskRun

__all__ = ["CallEncoder", "Encoded", "load_progress", "load_reply", "load_value", "pack"]


# The call's frame, and the function itself where it travels apart.
Encoded = tuple[Frame, FunctionBlob | None]


class CallEncoder:
    """Makes call frames; remembers which functions are known by name, and the pickles of the others.

    ``codec``: the option of that name. ``codecs`` is what is taken for answers.
    ``store``: without one, functions by value travel with each call, whatever their size.
    ``by``: how functions are sent unless the call says it, see ``goes_by_name``.
    """

    compression: str | None = None  # how large frames are still to be compressed

    def __init__(
        self,
        codec: str = "pickle",
        pool: str = "",
        *,
        store: FunctionStore | None = None,
        by: str | None = None,
    ) -> None:
        self.codec = codec_named(codec)
        self.codecs = Codecs(only_data=codec == "data", whose=f"pool '{pool}'" if pool else "this pool")
        self._store = store
        self._by = by
        self._names: WeakKeyDictionary[Callable[..., Any], tuple[bytes, bool]] = WeakKeyDictionary()

    def check_function(self, call: Call) -> None:
        """Can the call's function be sent? Raises CodecError."""
        by = call.by or self._by
        if not self._named(call.function, by)[1]:
            _whole(call.function, by)

    def _named(self, function: Callable[..., Any], by: str | None) -> tuple[bytes, bool]:
        """Its name, and whether it is sent by that. Raises CodecError."""
        name, by_name = self._looked_up(function, by)
        if self.codecs.only_data:
            if not by_name:
                raise _unsendable(function)
            if not self.codecs.knows(function):
                self.codecs.learn(function)
        return name, by_name

    def _looked_up(self, function: Callable[..., Any], by: str | None) -> tuple[bytes, bool]:
        if by is not None or by_value_modules():
            return _encoded(function), goes_by_name(function, by)
        try:
            known = self._names.get(function)
        except TypeError:  # neither hashable nor weakly referable: a callable instance, say
            return _encoded(function), goes_by_name(function, by)
        if known is None:
            known = self._names[function] = _encoded(function), goes_by_name(function, by)
        return known

    def encode(self, call: Call, seconds: float, flags: int = 0) -> Encoded:
        """The call, ready to be sent.

        Raises:
            CodecError: the function or an argument can't be pickled; the text names it.
        """
        return self._framed(call, seconds, flags)

    def frame(self, call: Call, seconds: float, flags: int = 0) -> Frame:
        """The call as a frame with all it needs, its function included. Raises as ``encode``."""
        return self._framed(call, seconds, flags, whole=True)[0]

    def _framed(
        self, call: Call, seconds: float, flags: int, *, whole: bool = False
    ) -> tuple[Frame, FunctionBlob | None]:
        by = call.by or self._by
        name, by_name = self._named(call.function, by)
        body, buffers = _arguments(call, self.codec)
        flags |= self.codec.flag
        meta = _meta(call) if call.trace_id or call.task is not None else b""
        function = None if by_name or whole else self._blob(call.function, by)
        if function is not None and function.inline is None:
            flags |= Flag.BY_DIGEST
            meta = function.field + meta
        elif not by_name:
            flags |= Flag.BY_VALUE
            buffers.insert(0, (function and function.inline) or _whole(call.function, by))
            function = None
        if call.on_progress is not None:
            flags |= Flag.PROGRESS
        if call.task is not None:
            flags |= _task_flags(call.task, buffers)
        frame = Frame(FrameKind.CALL, call.id, name, meta, body, buffers, flags, seconds=seconds)
        return frame, function

    def _blob(self, function: Callable[..., Any], by: str | None) -> FunctionBlob | None:
        return None if self._store is None else self._store.blob(function, stated=by == "value")


def _encoded(function: Callable[..., Any]) -> bytes:
    return label(function).encode()[:MAX_NAME]


def _whole(function: Callable[..., Any], by: str | None) -> bytes:
    module = module_of(function) if by == "value" else ""
    return inline_field(pickled(function, label(function), module, whole=True))


def _task_flags(task: TaskRun, buffers: list[Buffer]) -> int:
    if task.checkpointed is None:
        return Flag.TASK
    buffers.append(task.checkpointed)
    return Flag.TASK | Flag.CHECKPOINT


def _meta(call: Call) -> bytes:
    facts: dict[str, Any] = {"trace": call.trace_id} if call.trace_id else {}
    if call.task is not None:
        facts |= {"id": call.task.id, "attempt": call.task.attempt}
    return json.dumps(facts).encode()


def _unsendable(function: Callable[..., Any]) -> CodecError:
    name = label(function)
    return CodecError(
        f"The function {name} can't be sent: a pool with codec='data' sends no function, it only names one. "
        "Define it at the top of an importable module, and name that with --import where it runs.",
        function=name,
    )


def pack(call: Call, codec: Codec) -> None:
    """Encode the arguments now, so that nothing that becomes of them later changes the call.

    Raises:
        CodecError: one of them can't be pickled; the text names it.
    """
    if call.packed is None:
        body, buffers = _arguments(call, codec)
        call.packed = body, [bytes(b) if isinstance(b, bytes) else bytearray(b) for b in buffers]
        call.args, call.kwargs, call.carried = (), {}, ()


def _arguments(call: Call, codec: Codec) -> tuple[bytes, list[Buffer]]:
    if call.packed is not None:
        body, buffers = call.packed
        return body, list(buffers)
    try:
        return codec.dumps_call(call.args, call.kwargs, call.carried)
    except CodecError as error:
        raise _named(call, error, codec) from error.__cause__


def _named(call: Call, error: CodecError, codec: Codec) -> CodecError:
    """The same error, saying which argument it was."""
    for name, value in _by_parameter(call):
        try:
            codec.dumps(value)
        except CodecError as culprit:
            function = label(call.function)
            return CodecError(
                f"The argument {name!r} of {function} can't be sent: {culprit}",
                argument=name,
                function=function,
            )
    return error


def _by_parameter(call: Call) -> list[tuple[str, Any]]:
    try:
        bound = inspect.signature(call.function).bind(*call.args, **call.kwargs)
        return list(bound.arguments.items())
    except (TypeError, ValueError):
        return [*((str(n), value) for n, value in enumerate(call.args)), *call.kwargs.items(), *call.carried]


def load_value(frame: Frame, codecs: Codecs) -> Any:
    """The value in a reply or stream item. Raises DecodeError."""
    return codecs.loads(frame.flags, frame.body, frame.buffers)


def load_reply(frame: Frame, codecs: Codecs) -> Any:
    """The value of a reply frame; raises what an error frame holds."""
    if frame.kind == FrameKind.REPLY:
        return codecs.loads(frame.flags, frame.body, frame.buffers)
    raise codecs.load_error(frame.flags, frame.body)


def load_progress(frame: Frame, codecs: Codecs) -> ProgressUpdate:
    """The progress in a frame. Raises DecodeError."""
    return ProgressUpdate(*load_value(frame, codecs))
