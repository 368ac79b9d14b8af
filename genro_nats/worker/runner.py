"""The steps of a call in a child before its answer: open and enter. Each takes and gives plain objects.

``open_call`` resolves the function and decodes the arguments; ``enter`` sets
what ``current_call()`` and the carried context variables show; ``answers.py``
turns the outcome into a frame's chunks. The kinds of children (``child.py``,
``async_child.py``) differ only in what runs between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, NamedTuple

from genro_nats.codec.by_value import digest_in, opened_inline
from genro_nats.codec.codecs import refusal
from genro_nats.codec.compression import MAX_RAW, expand
from genro_nats.codec.frame import Buffer, Flag, Frame
from genro_nats.codec.functions import FunctionCache, find_object
from genro_nats.errors import (
    DecodeError,
)
from genro_nats.message import CallContext, ProgressUpdate, running_call
from genro_nats.worker.answers import CallAbout, checkpoint_frame, progress_frame
from genro_nats.worker.meta import facts_in

__all__ = [
    "Opened",
    "describe",
    "enter",
    "open_call",
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
    limit: int = MAX_RAW,
) -> CallContext:
    """What ``current_call()`` shows while this frame's call runs.

    ``look``: hear of a cancel; ``limit``: bytes that progress may take. Raises DecodeError.
    """
    about = CallAbout(frame.id, frame.name, frame.flags)  # not the frame: it holds the arguments
    listener = keep = None
    if frame.flags & Flag.PROGRESS:

        def listener(update: ProgressUpdate) -> None:
            send(progress_frame(about, update, limit))

    if frame.flags & Flag.TASK:

        def keep(value: Any) -> None:
            send(checkpoint_frame(about, value))

    if not frame.meta:
        return CallContext(
            frame.id.hex(),
            pool=pool,
            address=address,
            function=frame.name.decode(errors="replace"),
            seconds=frame.seconds,
            on_progress=listener,
            on_checkpoint=keep,
            look=look,
        )
    facts = facts_in(frame)
    return CallContext(
        str(facts.get("id", "")) or frame.id.hex(),
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
    return str(facts_in(frame).get("at", "")) or frame.name.decode(errors="replace")


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
