"""What a call says, as the chunks of its frames: value, items, progress, checkpoints, errors."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from typing import Any, Final, NamedTuple, Protocol

from genro_nats.codec.codecs import codec_of
from genro_nats.codec.compression import ACCEPTING, MAX_RAW, accepted, press
from genro_nats.codec.error_text import MAX_TEXT, shortened, text_of, traceback_of, type_name
from genro_nats.codec.frame import MAX_META, MAX_NAME, Buffer, Flag, Frame, FrameKind, chunks, size
from genro_nats.errors import (
    CodecError,
    FunctionNotFoundError,
    NotAllowedError,
    PayloadTooLargeError,
    RemoteError,
)
from genro_nats.message import ProgressUpdate
from genro_nats.tasks.retry import asked_delay, type_names
from genro_nats.worker.meta import facts_in

__all__ = ["CallAbout", "checkpoint_frame", "error_reply", "item_frame", "progress_frame", "value_reply"]

_MAX_TEXT: Final = 2000  # characters of an error's text in a task's status
log: Final = logging.getLogger("genro_nats.worker")


class CallAbout(NamedTuple):
    """What identifies a call, without its arguments."""

    id: bytes
    name: bytes
    flags: int


class About(Protocol):
    """A call's frame, or what is left of it."""

    @property
    def id(self) -> bytes: ...
    @property
    def name(self) -> bytes: ...
    @property
    def flags(self) -> int: ...


def value_reply(
    frame: Frame, value: Any, started: float, flags: int = 0, limit: int = MAX_RAW
) -> list[Buffer]:
    """The reply frame with a result, or an error reply when the result can't be sent. Never raises."""
    try:
        codec = codec_of(frame.flags)
        body, buffers = codec.dumps(value)
        seconds = time.monotonic() - started
        own = flags | codec.flag
        reply = Frame(FrameKind.REPLY, frame.id, body=body, buffers=buffers, seconds=seconds, flags=own)
        if frame.flags & ACCEPTING:
            press(reply, accepted(frame.flags))
        return _fitting(chunks(reply), limit, "The result", frame)
    except PayloadTooLargeError as error:
        return error_reply(frame, error, started, flags, limit)
    except CodecError as error:
        name = _name(frame)
        wrapped = CodecError(f"The result of {name} can't be sent back: {error}", function=name)
        return error_reply(frame, wrapped, started, flags, limit)
    except BaseException as error:  # a __reduce__ may raise anything
        return error_reply(frame, error, started, flags, limit)


def _name(call: About) -> str:
    return call.name.decode(errors="replace")


def _fitting(parts: list[Buffer], limit: int, what: str, call: About) -> list[Buffer]:
    """The chunks. Raises PayloadTooLargeError if they are more than ``limit`` bytes."""
    length = sum(map(size, parts))
    if length > limit:
        raise PayloadTooLargeError(
            f"{what} of {_name(call)} takes {length:,} bytes; the worker sends {limit:,} (max_payload_size).",
            size=length,
            limit=limit,
        )
    return parts


def item_frame(frame: Frame, value: Any, limit: int = MAX_RAW) -> list[Buffer]:
    """One item of a stream. Raises CodecError when it can't be sent."""
    codec = codec_of(frame.flags)
    try:
        body, buffers = codec.dumps(value)
    except CodecError as error:
        name = _name(frame)
        raise CodecError(f"An item of {name} can't be sent: {error}", function=name) from error
    item = Frame(FrameKind.ITEM, frame.id, body=body, buffers=buffers, flags=codec.flag)
    return _fitting(chunks(press(item, accepted(frame.flags))), limit, "An item", frame)


def error_reply(
    frame: Frame, error: BaseException, started: float, flags: int = 0, limit: int = MAX_RAW
) -> list[Buffer]:
    """The error frame of whatever a call raised. Never raises: of what can't be sent, its texts are."""
    flags |= codec_of(frame.flags).flag
    try:
        return _fitting_error(frame, error, started, flags, limit)
    except BaseException as why:  # or a caller would wait for ever
        return _least_reply(frame, error, why, started, flags)


def _fitting_error(
    frame: Frame, error: BaseException, started: float, flags: int, limit: int
) -> list[Buffer]:
    """The error, or its texts where all of it takes more than may be sent."""
    parts = _error_frame(frame, error, error, started, flags)
    try:
        return _fitting(parts, limit, "The exception", frame)
    except PayloadTooLargeError as why:
        return _error_frame(frame, error, _texts(error, str(why), limit // 8), started, flags)


def _error_frame(
    frame: Frame, error: BaseException, shown: BaseException, started: float, flags: int
) -> list[Buffer]:
    """An error's frame, of which the caller gets ``shown``."""
    seconds = time.monotonic() - started
    kind = type_name(type(error)).encode()[:MAX_NAME]
    meta = _task_error(error, frame) if frame.flags & Flag.TASK else _refused(error)
    body = codec_of(frame.flags).dump_error(shown)
    reply = Frame(FrameKind.ERROR, frame.id, kind, meta, body, (), flags, 0, seconds)
    return chunks(press(reply, accepted(frame.flags)))


def _texts(error: BaseException, reason: str, length: int) -> RemoteError:
    """An error's texts, of so many characters at most, and why that is all."""
    name, text = type_name(type(error)), text_of(error)[: min(length, _MAX_TEXT)]
    told = f"{name.replace(':', '.')}: {text}\n(no more of it could be sent: {reason})"
    trace = shortened(traceback_of(error), min(length, MAX_TEXT))
    return RemoteError(told, type_name=name, text=text, traceback=trace)


def _least_reply(
    frame: Frame, error: BaseException, why: BaseException, started: float, flags: int
) -> list[Buffer]:
    """The texts of an error whose reply could not be made, and why."""
    name, text = type_name(type(error)), text_of(error)[:_MAX_TEXT]
    reason = f"{type_name(type(why))}: {text_of(why)[:_MAX_TEXT]}"
    with contextlib.suppress(BaseException):
        log.error("no reply could be made of a call's %s: %s", name, reason)
    try:
        body = codec_of(frame.flags).dump_error(_texts(error, reason, MAX_TEXT))
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
        facts["missing"] = missed in (_name(frame), facts_in(frame).get("at", ""))
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


def checkpoint_frame(call: About, value: Any) -> list[Buffer]:
    """What a task's next attempt gets. Raises CodecError when it can't be pickled."""
    codec = codec_of(call.flags)  # it travels inside another frame: in one piece
    return chunks(Frame(FrameKind.CHECKPOINT, call.id, body=codec.dumps_whole(value), flags=codec.flag))


def progress_frame(call: About, update: ProgressUpdate, limit: int = MAX_RAW) -> list[Buffer]:
    """A progress message to the caller of a call. Raises CodecError when it can't be sent."""
    codec = codec_of(call.flags)
    body, buffers = codec.dumps([update.fraction, update.text, update.data])
    progress = Frame(FrameKind.PROGRESS, call.id, body=body, buffers=buffers, flags=codec.flag)
    return _fitting(chunks(press(progress, accepted(call.flags))), limit, "Progress", call)
