"""The steps of a call in a child: open, run, answer. Each takes and gives plain objects.

``open_call`` resolves the function and decodes the arguments; ``enter`` sets
what ``current_call()`` and the carried context variables show; ``value_reply``
and ``error_reply`` turn the outcome into a frame's chunks. The kinds of
children (``child.py``, ``async_child.py``) differ only in what runs between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, NamedTuple

from genro_nats.codec import values
from genro_nats.codec.exceptions import dump_error
from genro_nats.codec.frame import MAX_NAME, Buffer, Flag, Frame, FrameKind, chunks
from genro_nats.codec.functions import FunctionCache, find_object, label
from genro_nats.errors import CodecError, DecodeError
from genro_nats.message import CallContext, ProgressUpdate, running_call

__all__ = [
    "Opened",
    "describe",
    "enter",
    "error_reply",
    "item_frame",
    "open_call",
    "progress_frame",
    "value_reply",
]


class Opened(NamedTuple):
    """A call ready to run."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    carried: list[tuple[str, Any]]


def open_call(frame: Frame, cache: FunctionCache) -> Opened:
    """The function and arguments of a call frame.

    Raises:
        FunctionNotFoundError, DecodeError: as their texts say.
    """
    buffers = frame.buffers
    blob = None
    if frame.flags & Flag.BY_VALUE:
        if not buffers:
            raise DecodeError("A call by value without its function.")
        blob, buffers = bytes(buffers[0]), buffers[1:]
    function = cache.get(frame.name, blob)
    packed = values.loads(frame.body, buffers)
    frame.body, frame.buffers = b"", ()  # the arguments hold what they need of its memory
    try:
        args, kwargs, *carried = packed
        return Opened(function, args, kwargs, carried[0] if carried else [])
    except (TypeError, ValueError) as error:
        raise DecodeError("A call's arguments are not packed as expected.") from error


def describe(frame: Frame, pool: str, address: str, send: Callable[[list[Buffer]], None]) -> CallContext:
    """What ``current_call()`` shows while this frame's call runs. Raises DecodeError."""
    trace_id = _trace_id(frame.meta) if frame.meta else ""
    call_id = frame.id
    listener = None
    if frame.flags & Flag.PROGRESS:

        def listener(update: ProgressUpdate) -> None:
            send(progress_frame(call_id, update))

    return CallContext(
        call_id.hex(),
        trace_id=trace_id,
        pool=pool,
        address=address,
        function=frame.name.decode(errors="replace"),
        seconds=frame.seconds,
        on_progress=listener,
    )


def _trace_id(meta: bytes) -> str:
    try:
        return str(json.loads(meta).get("trace", ""))
    except (ValueError, AttributeError, RecursionError) as error:
        raise DecodeError(f"A call's meta is no JSON object: {error}") from error


def enter(call: CallContext, carried: list[tuple[str, Any]]) -> Context:
    """A context in which the call is the running one and the carried variables are set."""
    context = copy_context()
    context.run(running_call.set, call)
    try:
        pairs = [(str(name), value) for name, value in carried]
    except (TypeError, ValueError) as error:
        raise DecodeError("A call's carried variables are not packed as expected.") from error
    for name, value in pairs:
        context.run(_find_variable(name).set, value)
    return context


def _find_variable(name: str) -> ContextVar[Any]:
    found = find_object(name)
    if not isinstance(found, ContextVar):
        raise DecodeError(f"{name} is no ContextVar here, so its value can't be carried.")
    return found


def value_reply(frame: Frame, value: Any, started: float, flags: int = 0) -> list[Buffer]:
    """The reply frame with a result, or an error reply when the result can't be pickled."""
    try:
        body, buffers = values.dumps(values.lift(value))
    except CodecError as error:
        name = frame.name.decode(errors="replace")
        wrapped = CodecError(f"The result of {name} can't be sent back: {error}", function=name)
        return error_reply(frame, wrapped, started, flags)
    except BaseException as error:  # a __reduce__ may raise anything
        return error_reply(frame, error, started, flags)
    seconds = time.monotonic() - started
    return chunks(Frame(FrameKind.REPLY, frame.id, body=body, buffers=buffers, seconds=seconds, flags=flags))


def item_frame(frame: Frame, value: Any) -> list[Buffer]:
    """One item of a stream. Raises CodecError when it can't be pickled."""
    body, buffers = values.dumps(values.lift(value))
    return chunks(Frame(FrameKind.ITEM, frame.id, body=body, buffers=buffers))


def error_reply(frame: Frame, error: BaseException, started: float, flags: int = 0) -> list[Buffer]:
    """The error frame of whatever a call raised."""
    seconds = time.monotonic() - started
    kind = label(type(error)).encode("utf-8", "replace")[:MAX_NAME]
    return chunks(Frame(FrameKind.ERROR, frame.id, kind, b"", dump_error(error), (), flags, 0, seconds))


def progress_frame(call_id: bytes, update: ProgressUpdate) -> list[Buffer]:
    """A progress message to the caller."""
    body, buffers = values.dumps((update.fraction, update.text, update.data))
    return chunks(Frame(FrameKind.PROGRESS, call_id, body=body, buffers=buffers))
