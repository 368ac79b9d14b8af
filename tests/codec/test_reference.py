"""References stand for their frame, and refuse to be anything else."""

from __future__ import annotations

import pytest

from genro_nats.codec.frame import Flag, Frame, FrameKind, check, chunks, decode, encode
from genro_nats.codec.reference import Reference, refer, referred
from genro_nats.errors import DecodeError

REFERENCE = Reference(bytes(range(16)), 5_000_000_000, "genro.bulk.ab.owner")


def test_it_keeps_what_the_parent_reads() -> None:
    frame = Frame(
        FrameKind.CALL, b"i" * 16, b"m:f", b"{}", b"body", [b"x" * 70_000], Flag.STREAM, hops=2, seconds=7.5
    )
    for start in (encode(frame), b"".join(chunks(frame)[:2])):
        data = refer(start, REFERENCE)
        check(data)
        found, end = decode(data)
        assert end == len(data)
        assert referred(found.body) == REFERENCE
        assert (found.kind, found.id, found.name, found.hops, found.seconds) == (1, b"i" * 16, b"m:f", 2, 7.5)
        assert found.flags == Flag.STREAM | Flag.REFERRED
        assert not found.buffers


@pytest.mark.parametrize(
    "subject",
    ["", "a..b", ".a", "a.*", "a.>", "a b", "a\r\nPUB x 0", "$JS.API.x", "ü", "a" * 1025],
)
def test_a_subject_that_nobody_may_be_made_to_send_to(subject: str) -> None:
    body = refer(encode(Frame(FrameKind.CALL)), REFERENCE._replace(owner="x"))[48:-1] + subject.encode()
    with pytest.raises(DecodeError, match="proper reference"):
        referred(body)


def test_a_payload_smaller_than_a_frame() -> None:
    body = decode(refer(encode(Frame(FrameKind.CALL)), REFERENCE._replace(size=47)))[0].body
    with pytest.raises(DecodeError, match="47 bytes"):
        referred(body)
