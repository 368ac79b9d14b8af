"""Sealed chunks and words, whatever pieces they come in."""

from __future__ import annotations

import os

import pytest

from genro_nats.codec.frame import HEADER_SIZE, Frame, FrameKind, encode
from genro_nats.codec.signing import SEAL_SIZE, Flaw, Keyring
from genro_nats.transport.guard import Guard
from genro_nats.transport.reader import Feed
from genro_nats.transport.transfer.sealed import Unsealing

PULL = bytes(range(16))
INBOX = "p.bulk.me."
KEYS = Keyring([("k", bytes(32))])
BODY = os.urandom(300)


class Receiver:
    """What comes through, and what is refused."""

    def __init__(self) -> None:
        self.guard = Guard(KEYS, "p")
        self.heads: list[bytes] = []
        self.body = b""
        self.flaws: list[tuple[bytes, str]] = []
        self.unsealing = Unsealing(self.guard, INBOX, self.take, self.flawed)

    def take(self, start: bytes, length: int) -> Feed:
        self.heads.append(start)
        return self.feed

    def feed(self, piece: memoryview) -> None:
        self.body += bytes(piece)

    def flawed(self, pull: bytes, flaw: Flaw) -> None:
        self.flaws.append((pull, flaw.reason))

    def get(self, data: bytes, step: int) -> None:
        head = SEAL_SIZE + HEADER_SIZE
        feed = self.unsealing(data[:head], len(data))
        for at in range(head, len(data), step):
            if feed is not None:
                feed(memoryview(data)[at : at + step])


def sealed(subject: str, frame: Frame) -> bytes:
    data = encode(frame)
    return Guard(KEYS, "p").seal(subject, [data], "") + data


@pytest.fixture
def chunk() -> bytes:
    """Sealed now: a seal is good for a minute only."""
    return sealed(INBOX + PULL.hex(), Frame(FrameKind.CHUNK, PULL, body=BODY, seconds=0.0))


@pytest.mark.parametrize("step", [1, 2, 7, 299, 300])
def test_a_chunk_arrives_whole(chunk: bytes, step: int) -> None:
    receiver = Receiver()
    receiver.get(chunk, step)
    assert receiver.body == BODY
    assert receiver.heads == [chunk[SEAL_SIZE : SEAL_SIZE + HEADER_SIZE]]
    assert receiver.flaws == []


@pytest.mark.parametrize("step", [1, 64, 300])
def test_a_changed_chunk_is_never_complete(chunk: bytes, step: int) -> None:
    for at in range(SEAL_SIZE + HEADER_SIZE, len(chunk)):
        receiver = Receiver()
        data = bytearray(chunk)
        data[at] ^= 1
        receiver.get(bytes(data), step)
        assert len(receiver.body) < len(BODY)
        assert receiver.flaws == [(PULL, "wrong signature")]


def test_a_chunk_of_another_pull_or_without_a_seal() -> None:
    receiver = Receiver()
    receiver.get(sealed("p.bulk.you." + PULL.hex(), Frame(FrameKind.CHUNK, PULL, body=BODY)), 300)
    receiver.get(encode(Frame(FrameKind.CHUNK, PULL, body=BODY)), 300)
    assert receiver.flaws == [(PULL, "wrong signature"), (PULL, "unsigned")]
    assert len(receiver.body) < len(BODY)


def test_words_come_as_a_whole_once_and_to_whom_they_are_meant_for() -> None:
    word = Frame(FrameKind.GRANT, PULL, body=bytes(8))
    for step in (1, 3, 8):
        receiver = Receiver()
        data = sealed(INBOX + "owner", word)
        receiver.get(data, step)
        assert receiver.heads[0] + receiver.body == encode(word)
        receiver.get(data, step)
        receiver.get(sealed("p.bulk.you.owner", word), step)
        assert len(receiver.heads) == 1
        assert receiver.guard.rejected == {"replayed": 1, "wrong signature": 1}


def test_what_is_too_short_to_be_anything(chunk: bytes) -> None:
    receiver = Receiver()
    for data in (b"", b"x", chunk[:20], chunk[:SEAL_SIZE], chunk[: SEAL_SIZE + 10]):
        assert receiver.unsealing(data, len(data)) is None
    assert receiver.heads == []
