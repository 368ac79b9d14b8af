"""The steps of a call in a child: open, run, answer. Each takes and gives plain objects.

``open_call`` resolves the function and decodes the arguments; ``enter`` sets
what ``current_call()`` and the carried context variables show; ``value_reply``
and ``error_reply`` turn the outcome into a frame's chunks. The kinds of
children (``child.py``, ``async_child.py``) differ only in what runs between.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, NamedTuple

from genro_nats.codec.by_value import FIELD_SIZE, digest_in, opened_inline
from genro_nats.codec.codecs import codec_of, refusal
from genro_nats.codec.compression import ACCEPTING, MAX_RAW, accepted, expand, press
from genro_nats.codec.error_text import text_of, traceback_of, type_name
from genro_nats.codec.frame import MAX_META, MAX_NAME, Buffer, Flag, Frame, FrameKind, chunks
from genro_nats.codec.functions import FunctionCache, find_object
from genro_nats.errors import (
    CodecError,
    DecodeError,
    FunctionNotFoundError,
    NotAllowedError,
    PayloadTooLargeError,
    RemoteError,
)
from genro_nats.message import CallContext, ProgressUpdate, running_call
from genro_nats.tasks.retry import asked_delay, type_names

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


_MAX_TEXT: Final = 2000  # characters of an error's text in a task's status
log: Final = logging.getLogger("genro_nats.worker")


class Opened(NamedTuple):
    """A call ready to run. ``checkpointed``: what an earlier attempt of the task left."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    carried: list[tuple[str, Any]]
    checkpointed: Any = None


def open_call(frame: Frame, cache: FunctionCache, limit: int = MAX_RAW) -> Opened:
    """The function and arguments of a call frame; ``limit``: bytes that a compressed one may become.

    Raises:
        FunctionNotFoundError, DecodeError, PayloadTooLargeError: as their texts say.
        NotAllowedError: this child runs registered functions only, and this is none, or no data.
    """
    codecs, flags = cache.codecs, frame.flags
    if cache.strict and (refused := refusal(flags)) is not None:
        raise refused
    if flags & Flag.COMPRESSED:
        expand(frame, limit)
    buffers = frame.buffers
    field = None
    if frame.flags & Flag.BY_VALUE:
        if not buffers:
            raise DecodeError("A call by value without its function.")
        field, buffers = buffers[0], buffers[1:]
    checkpointed: Any = None
    if frame.flags & Flag.CHECKPOINT:
        if not buffers:
            raise DecodeError("A call with a checkpoint that is missing.")
        checkpointed, buffers = buffers[-1], buffers[:-1]
    function = _function(frame, field, cache)
    if flags & Flag.DATA:
        codecs.learn(function)
    if checkpointed is not None:
        checkpointed = codecs.loads(flags, checkpointed)
    packed = codecs.loads(flags, frame.body, buffers)
    frame.body, frame.buffers = b"", ()  # the arguments hold what they need of its memory
    try:
        args, kwargs, *carried = packed
        if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
            raise TypeError
        if cache.strict and carried:
            cache.require_carried(carried[0])
        return Opened(function, tuple(args), kwargs, carried[0] if carried else [], checkpointed)
    except (TypeError, ValueError) as error:
        raise DecodeError("A call's arguments are not packed as expected.") from error


def _function(frame: Frame, field: Buffer | None, cache: FunctionCache) -> Callable[..., Any]:
    if frame.flags & Flag.BY_DIGEST:
        return cache.by_digest(digest_in(frame.meta), frame.name)
    if field is None:
        return cache.get(frame.name, None, _standing(frame) if frame.flags & Flag.TASK else "")
    return cache.get(frame.name, opened_inline(field, frame.name.decode(errors="replace")))


def describe(
    frame: Frame,
    pool: str,
    address: str,
    send: Callable[[list[Buffer]], None],
    look: Callable[[], object] | None = None,
) -> CallContext:
    """What ``current_call()`` shows while this frame's call runs; ``look``: hear of a cancel. Raises DecodeError."""
    call_id, flags = frame.id, frame.flags
    listener = keep = None
    if frame.flags & Flag.PROGRESS:

        def listener(update: ProgressUpdate) -> None:
            send(progress_frame(call_id, update, flags))

    if frame.flags & Flag.TASK:

        def keep(value: Any) -> None:
            send(_checkpoint_frame(call_id, value, flags))

    if not frame.meta:
        return CallContext(
            call_id.hex(),
            pool=pool,
            address=address,
            function=frame.name.decode(errors="replace"),
            seconds=frame.seconds,
            on_progress=listener,
            on_checkpoint=keep,
            look=look,
        )
    facts = _facts(frame)
    return CallContext(
        str(facts.get("id", "")) or call_id.hex(),
        trace_id=str(facts.get("trace", "")),
        pool=pool,
        address=address,
        function=frame.name.decode(errors="replace"),
        attempt=_whole(facts.get("attempt", 1)),
        seconds=frame.seconds,
        on_progress=listener,
        on_checkpoint=keep,
        look=look,
    )


def _standing(frame: Frame) -> str:
    """Where a task's function stood when it was stored."""
    return str(_facts(frame).get("at", "")) or frame.name.decode(errors="replace")


def _facts(frame: Frame) -> dict[str, Any]:
    """What the frame's meta says. Raises DecodeError."""
    meta = frame.meta[FIELD_SIZE:] if frame.flags & Flag.BY_DIGEST else frame.meta
    if not meta:
        return {}
    try:
        found = json.loads(meta)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"A call's meta is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DecodeError("A call's meta is no JSON object.")
    return found


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise DecodeError(f"A call's attempt is {value!r}.")
    return value


def enter(call: CallContext, opened: Opened) -> Context:
    """A context in which the call is the running one and the carried variables are set."""
    context = copy_context()
    context.run(running_call.set, call)
    call.checkpointed = opened.checkpointed
    if not opened.carried:
        return context
    try:
        pairs = [(str(name), value) for name, value in opened.carried]
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
    """The reply frame with a result, or an error reply when the result can't be sent. Never raises."""
    try:
        codec = codec_of(frame.flags)
        body, buffers = codec.dumps(value)
        seconds = time.monotonic() - started
        own = flags | codec.flag
        reply = Frame(FrameKind.REPLY, frame.id, body=body, buffers=buffers, seconds=seconds, flags=own)
        if frame.flags & ACCEPTING:
            press(reply, accepted(frame.flags))
        return chunks(reply)
    except CodecError as error:
        name = frame.name.decode(errors="replace")
        wrapped = CodecError(f"The result of {name} can't be sent back: {error}", function=name)
        return error_reply(frame, wrapped, started, flags)
    except BaseException as error:  # a __reduce__ may raise anything
        return error_reply(frame, error, started, flags)


def item_frame(frame: Frame, value: Any) -> list[Buffer]:
    """One item of a stream. Raises CodecError when it can't be pickled."""
    codec = codec_of(frame.flags)
    body, buffers = codec.dumps(value)
    item = Frame(FrameKind.ITEM, frame.id, body=body, buffers=buffers, flags=codec.flag)
    return chunks(press(item, accepted(frame.flags)))


def error_reply(frame: Frame, error: BaseException, started: float, flags: int = 0) -> list[Buffer]:
    """The error frame of whatever a call raised. Never raises: of what can't be sent, its texts are."""
    flags |= codec_of(frame.flags).flag
    try:
        return _error_frame(frame, error, started, flags)
    except BaseException as why:  # or a caller would wait for ever
        return _least_reply(frame, error, why, started, flags)


def _error_frame(frame: Frame, error: BaseException, started: float, flags: int) -> list[Buffer]:
    seconds = time.monotonic() - started
    kind = type_name(type(error)).encode()[:MAX_NAME]
    meta = _task_error(error, frame) if frame.flags & Flag.TASK else _refused(error)
    body = codec_of(frame.flags).dump_error(error)
    reply = Frame(FrameKind.ERROR, frame.id, kind, meta, body, (), flags, 0, seconds)
    return chunks(press(reply, accepted(frame.flags)))


def _least_reply(
    frame: Frame, error: BaseException, why: BaseException, started: float, flags: int
) -> list[Buffer]:
    """The texts of an error whose reply could not be made, and why."""
    name, text, reason = type_name(type(error)), text_of(error)[:_MAX_TEXT], text_of(why)[:_MAX_TEXT]
    reason = f"{type_name(type(why))}: {reason}"
    with contextlib.suppress(BaseException):
        log.error("no reply could be made of a call's %s: %s", name, reason)
    try:
        told = f"{name.replace(':', '.')}: {text}\n(no more of it could be sent: {reason})"
        known = RemoteError(told, type_name=name, text=text, traceback=traceback_of(error))
        body = codec_of(frame.flags).dump_error(known)
    except BaseException:  # out of memory: an empty body is a DecodeError, and better than no answer
        body = b""
    meta = (
        json.dumps({"types": [name], "text": text, "retry": None}).encode()
        if frame.flags & Flag.TASK
        else b""
    )
    seconds = time.monotonic() - started
    kind = name.encode()[:MAX_NAME]
    return chunks(Frame(FrameKind.ERROR, frame.id, kind, meta, body, (), flags, 0, seconds))


def _refused(error: BaseException) -> bytes:
    """Tells the parent, which opens no body, why the call was not taken."""
    if not issubclass(type(error), NotAllowedError):  # isinstance would ask its __class__
        return b""
    return json.dumps({"refused": _field(error, "reason")}).encode()


def _task_error(error: BaseException, frame: Frame) -> bytes:
    """What a worker needs to decide whether the task is tried again, without unpickling anything.

    Raises PayloadTooLargeError for a class of too many bases.
    """
    kind = type(error)
    types, text = type_names(kind), text_of(error)[:_MAX_TEXT]
    facts: dict[str, Any] = {"types": types, "text": text, "retry": asked_delay(error)}
    if issubclass(kind, FunctionNotFoundError):
        missed = _field(error, "function")
        facts["missing"] = missed in (frame.name.decode(errors="replace"), _facts(frame).get("at", ""))
    if issubclass(kind, NotAllowedError):
        facts["refused"] = _field(error, "reason")
    meta = json.dumps(facts).encode()
    if len(meta) > MAX_META:
        what = f"The names of {len(types)} base classes take {len(meta)} bytes; the limit is {MAX_META}."
        raise PayloadTooLargeError(what, size=len(meta), limit=MAX_META)
    return meta


def _field(error: BaseException, name: str) -> str | None:
    """A field of an error of ours, which the user may have made."""
    try:
        found = error.fields[name]  # type: ignore[attr-defined]
    except BaseException:
        return None
    return found if type(found) is str else None


def _checkpoint_frame(call_id: bytes, value: Any, flags: int) -> list[Buffer]:
    codec = codec_of(flags)  # it travels inside another frame: in one piece
    return chunks(Frame(FrameKind.CHECKPOINT, call_id, body=codec.dumps_whole(value), flags=codec.flag))


def progress_frame(call_id: bytes, update: ProgressUpdate, flags: int = 0) -> list[Buffer]:
    """A progress message to the caller of a call with these flags."""
    codec = codec_of(flags)
    body, buffers = codec.dumps([update.fraction, update.text, update.data])
    progress = Frame(FrameKind.PROGRESS, call_id, body=body, buffers=buffers, flags=codec.flag)
    return chunks(press(progress, accepted(flags)))
