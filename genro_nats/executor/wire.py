"""Calls to frames, and replies to values: the caller's side of the codec."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from genro_nats.codec.codecs import Codec, Codecs, codec_named
from genro_nats.codec.frame import Buffer, Flag, Frame, FrameKind, chunks
from genro_nats.codec.functions import FunctionRef, importable, label, reference
from genro_nats.errors import CodecError
from genro_nats.message import Call, ProgressUpdate, TaskRun

__all__ = ["CallEncoder", "load_progress", "load_reply", "load_value", "pack"]


class CallEncoder:
    """Makes call frames; remembers which functions are known by name.

    ``codec``: the option of that name. ``codecs`` is what is taken for answers.
    """

    def __init__(self, codec: str = "pickle", pool: str = "") -> None:
        self.codec = codec_named(codec)
        self.codecs = Codecs(only_data=codec == "data", whose=f"pool '{pool}'" if pool else "this pool")
        self._by_name: WeakKeyDictionary[Callable[..., Any], FunctionRef] = WeakKeyDictionary()

    def reference(self, function: Callable[..., Any]) -> FunctionRef:
        """The function's reference. Raises CodecError when it can't be sent."""
        if self.codecs.only_data and not self.codecs.knows(function):
            _require_name(function)
            self.codecs.learn(function)
        try:
            found = self._by_name.get(function)
        except TypeError:  # neither hashable nor weakly referable: a callable instance, say
            return reference(function)
        if found is None:
            found = reference(function)
            # A closure may change between two calls: it is pickled anew each time.
            if found.blob is None:
                self._by_name[function] = found
        return found

    def encode(self, call: Call, seconds: float, flags: int = 0) -> tuple[bytes, list[Buffer]]:
        """The function's name and the call frame's chunks.

        Raises:
            CodecError: the function or an argument can't be pickled; the text names it.
        """
        frame = self.frame(call, seconds, flags)
        return frame.name, chunks(frame)

    def frame(self, call: Call, seconds: float, flags: int = 0) -> Frame:
        """The call as a frame. Raises as ``encode``."""
        name, blob = self.reference(call.function)
        body, buffers = _arguments(call, self.codec)
        flags |= self.codec.flag
        if blob is not None:
            flags |= Flag.BY_VALUE
            buffers.insert(0, blob)
        if call.on_progress is not None:
            flags |= Flag.PROGRESS
        if call.task is not None:
            flags |= _task_flags(call.task, buffers)
        meta = _meta(call) if call.trace_id or call.task is not None else b""
        return Frame(
            FrameKind.CALL,
            call.id,
            name=name,
            meta=meta,
            body=body,
            buffers=buffers,
            flags=flags,
            seconds=seconds,
        )


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


def _require_name(function: Callable[..., Any]) -> None:
    name = label(function)
    if not importable(function, name):
        raise CodecError(
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
        return load_value(frame, codecs)
    raise codecs.load_error(frame.flags, frame.body)


def load_progress(frame: Frame, codecs: Codecs) -> ProgressUpdate:
    """The progress in a frame. Raises DecodeError."""
    return ProgressUpdate(*load_value(frame, codecs))
