"""The frames that end a call, whatever it gave or raised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from genro_nats import FunctionNotFoundError, NotAllowedError, Retry
from genro_nats.codec.codecs import Codecs
from genro_nats.codec.frame import Flag, Frame, FrameKind, decode, encode
from genro_nats.tasks.retry import MAX_DELAY
from genro_nats.worker.answers import error_reply, value_reply
from tests.faults import lying
from tests.faults.jobs import many_buffers


def answered(frame: Frame, error: BaseException) -> tuple[Frame, Any]:
    """The reply as its receiver has it, and the exception in it."""
    reply, _ = decode(b"".join(error_reply(frame, error, 0.0)))
    assert (reply.kind, reply.id) == (FrameKind.ERROR, frame.id)
    return reply, Codecs().load_error(reply.flags, reply.body)


def task(flags: int = 0) -> Frame:
    return decode(encode(Frame(FrameKind.CALL, bytes(range(16)), b"m:f", flags=Flag.TASK | flags)))[0]


@pytest.mark.parametrize("flags", [0, Flag.DATA])
@pytest.mark.parametrize("kind", lying.KINDS)
def test_every_exception_of_a_task_is_told(kind: str, flags: int) -> None:
    reply, found = answered(task(flags), lying.KINDS[kind]())
    assert lying.arrived(kind, found)
    facts = json.loads(reply.meta)
    assert facts["types"] and isinstance(facts["text"], str) and facts["retry"] is None


def test_what_cannot_be_told_whole_is_told_in_texts(caplog: pytest.LogCaptureFixture) -> None:
    error = lying.KINDS["long-names"]()
    reply, found = answered(task(), error)
    assert (found.text, found.type_name) == ("x", f"tests.faults.lying:{'x' * 1000}")
    assert "The names of 402 base classes take" in str(found)
    assert json.loads(reply.meta) == {"types": [found.type_name], "text": "x", "retry": None}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    ("delay", "told"),
    [
        (5, 5.0),
        (float("nan"), 0.0),
        (float("inf"), MAX_DELAY),
        (-1, 0.0),
        ("x", 0.0),
        (lying.WontPickle(), 0.0),
    ],
)
def test_a_delay_that_was_changed_later(delay: Any, told: float) -> None:
    error = Retry("later")
    error.fields["delay"] = delay
    assert json.loads(answered(task(), error)[0].meta)["retry"] == told


@pytest.mark.parametrize("reason", [lying.WontPickle(), 5, None])
def test_errors_of_ours_that_a_function_raises_with_odd_fields(reason: Any) -> None:
    for flags in (0, Flag.TASK):
        frame = Frame(FrameKind.CALL, name=b"m:f", flags=flags)
        reply, _ = answered(frame, NotAllowedError("no", reason=reason))
        assert json.loads(reply.meta)["refused"] is None
    reply, _ = answered(task(), FunctionNotFoundError("no", function=reason))
    assert json.loads(reply.meta)["missing"] is False
    reply, _ = answered(task(), FunctionNotFoundError("no", function="m:f"))
    assert json.loads(reply.meta)["missing"] is True


def test_a_value_of_more_buffers_than_a_frame_can_name() -> None:
    reply, _ = decode(b"".join(value_reply(Frame(FrameKind.CALL, name=b"m:f"), many_buffers(4097), 0.0)))
    assert reply.kind == FrameKind.REPLY
    assert len(Codecs().loads(reply.flags, reply.body, reply.buffers)) == 4097
