"""Shared keys: what is sealed with one of them was written by somebody who has it. No I/O.

A seal stands before the data of a message::

    0   3s   magic b"\\x93GS"
    3   B    version (1)
    4   8s   id of the key, ASCII, filled up with zeros
    12  Q    time: nanoseconds since the epoch, by the clock of who sealed it
    20  32s  HMAC-SHA256 with the key, over: length of the context (4), the context,
             these 20 bytes, the data

The context says what the data was meant for (subjects); it does not travel. Keys are
written as ``id:base64``; of several, the first seals and all verify.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from genro_nats.codec.frame import Buffer
from genro_nats.errors import ConfigurationError, SignatureError

__all__ = ["MAGIC", "SEAL_SIZE", "Flaw", "Keyring", "Opening", "Verified", "new_key", "sealed_at"]

MAGIC: Final = b"\x93GS\x01"  # its version included
_VERSION: Final = 3  # where its version is
_KEY: Final = 4  # where the key's id is
_TIME: Final = 12
_HEAD: Final = 20  # bytes before the HMAC, which covers them
SEAL_SIZE: Final = 52
_MIN_SECRET: Final = 32  # bytes
_WHEN: Final = struct.Struct("!Q32s")  # time and HMAC
_length: Final = struct.Struct("!I").pack
_same: Final = hmac.compare_digest
_BLOCK: Final = 64  # bytes of SHA-256
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_LINE: Final = re.compile(r"([A-Za-z0-9_-]{1,8}):([A-Za-z0-9+/_-]+={0,2})")
_FORM: Final = (
    "id:base64, an id of 1 to 8 letters, digits, - or _, and at least 32 bytes (genro-nats auth key)"
)


class Flaw(NamedTuple):
    """Why a message is not heard. ``reason``: one of few words, to be counted by; ``text``: and what to do."""

    reason: str
    text: str

    def error(self, what: str = "", **fields: Any) -> SignatureError:
        """The error for those who wait for the message; ``what`` it was comes first."""
        return SignatureError(f"{what}: {self.text}" if what else self.text, reason=self.reason, **fields)


# Data without its seal, when that was made (nanoseconds), and its HMAC, which no other message has. A plain tuple,
# since there is one for each message.
Verified = tuple[bytes, int, bytes]


class _Key:
    """One key, as the two states that HMAC begins with: half of the time that ``hmac.digest`` takes."""

    __slots__ = ("begin", "field", "finish", "head")

    def __init__(self, field: bytes, secret: bytes) -> None:
        block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
        self.field = field
        self.head = MAGIC + field
        self.begin = hashlib.sha256(block.translate(_INNER)).copy
        self.finish = hashlib.sha256(block.translate(_OUTER)).copy


class Opening:
    """Sealed data on its way in: ``update`` with each piece of it, then ``verdict``."""

    __slots__ = ("_inner", "_key", "code", "time", "update")

    def __init__(self, key: _Key, seal: bytes, start: bytes) -> None:
        self._key = key
        self.code = seal[_HEAD:]
        self._inner = key.begin()
        self._inner.update(start)
        self.time = int.from_bytes(seal[_TIME:_HEAD], "big")
        self.update = self._inner.update

    def verdict(self) -> Flaw | None:
        """Is all that came what was sealed?"""
        outer = self._key.finish()
        outer.update(self._inner.digest())
        return None if hmac.compare_digest(outer.digest(), self.code) else _wrong(self._key.field)


class Keyring:
    """Keys by id; the first one seals. It shows ids only, and can't be pickled."""

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        found = [_Key(_field(id), secret) for id, secret in keys]
        if not found:
            raise ConfigurationError(f"There is no key. A key is written as {_FORM}.")
        self._heads = {key.head: key for key in found}
        if len(self._heads) < len(found):
            raise ConfigurationError("Two keys have the same id: each needs one of its own.")
        self._first = found[0]

    @classmethod
    def parse(cls, text: str, where: str) -> Keyring:
        """Keys as a file or variable (``where``) holds them: one per line or word, ``#`` begins a comment.

        Raises:
            ConfigurationError: none, or one that is malformed or too short; without showing it.
        """
        words = " ".join(line.partition("#")[0] for line in text.splitlines()).replace(",", " ").split()
        try:
            return cls([_read(word, number, where) for number, word in enumerate(words, 1)])
        except ConfigurationError as error:
            message = str(error)
        raise ConfigurationError(message if where in message else f"{where}: {message}")

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self.ids)}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the sealing one first."""
        return tuple(_shown(key.field) for key in self._heads.values())

    def seal(self, context: bytes, pieces: Sequence[Buffer], now: int) -> bytes:
        """The seal of data given in pieces; ``now``: nanoseconds since the epoch."""
        key = self._first
        head = key.head + now.to_bytes(8, "big")
        inner, outer = key.begin(), key.finish()
        inner.update(_length(len(context)) + context + head)
        for piece in pieces:
            inner.update(piece)
        outer.update(inner.digest())
        return head + outer.digest()

    def seal_all(self, wanted: Sequence[tuple[bytes | None, Buffer]], now: int) -> list[bytes]:
        """``seal`` for each context and data; where there is no context, none. No two have the same time."""
        first, begin, finish = self._first.head, self._first.begin, self._first.finish
        found = []
        for context, data in wanted:
            if context is None:
                found.append(b"")
                continue
            head = first + now.to_bytes(8, "big")
            now += 1
            inner, outer = begin(), finish()
            inner.update(_length(len(context)) + context + head)
            inner.update(data)
            outer.update(inner.digest())
            found.append(head + outer.digest())
        return found

    def verify(self, context: bytes, data: bytes) -> Verified | Flaw:
        """What is sealed in ``data``, if its seal is right for it and this context."""
        (opened,) = self.open_all([(context, data)], _never_seen, 0)
        if not isinstance(opened, bytes):
            return opened or self._unknown(data)
        when, code = _WHEN.unpack_from(data, _TIME)
        return opened, when, code

    def open_all(
        self,
        came: Iterable[tuple[bytes | None, bytes]],
        take: Callable[[int, bytes, int], Flaw | None],
        now: int,
    ) -> list[bytes | Flaw | None]:
        """What is sealed in the data of each context and data, or why not; None where there is no context.

        ``take(time, code, now)`` is asked about each seal that is right. In a row this is much faster than
        now and then.
        """
        heads = self._heads
        found: list[bytes | Flaw | None] = []  # a call of list[...] would make its types anew each time
        for context, data in came:
            if context is None:
                found.append(None)
                continue
            key = heads.get(data[:_TIME])
            if key is None or len(data) < SEAL_SIZE:
                found.append(self._unknown(data))
                continue
            when, code = _WHEN.unpack_from(data, _TIME)
            sealed = data[SEAL_SIZE:]
            inner, outer = key.begin(), key.finish()
            inner.update(_length(len(context)) + context + data[:_HEAD])
            inner.update(sealed)
            outer.update(inner.digest())
            if _same(outer.digest(), code):
                found.append(take(when, code, now) or sealed)
            else:
                found.append(_wrong(key.field))
        return found

    def opening(self, context: bytes, start: bytes) -> Opening | Flaw:
        """Begin to verify a message that begins with ``start``; its data is to follow by ``update``."""
        key = self._heads.get(start[:_TIME])
        if key is None or len(start) < SEAL_SIZE:
            return self._unknown(start)
        return Opening(key, start[:SEAL_SIZE], _length(len(context)) + context + start[:_HEAD])

    def _unknown(self, data: bytes) -> Flaw:
        if data[:_VERSION] == MAGIC[:_VERSION] and data[:_KEY] != MAGIC and len(data) >= SEAL_SIZE:
            return Flaw(
                "unsigned",
                f"it is signed in version {data[_VERSION]}, and this side reads version {MAGIC[_VERSION]}: "
                "bring both to the same release of genro-nats",
            )
        if data[:_KEY] != MAGIC or len(data) < SEAL_SIZE:
            return Flaw(
                "unsigned",
                "it is unsigned, and this side hears only what was signed with a shared key: give its sender the key "
                f"(GENRO_NATS_KEY or key_file); here there {_count(self.ids)}",
            )
        return Flaw(
            "unknown key",
            f"it is signed with key {_shown(data[_KEY:_TIME])!r}, and here there {_count(self.ids)}: "
            "give both sides the same keys (GENRO_NATS_KEY or key_file)",
        )


def _never_seen(_when: int, _code: bytes, _now: int) -> None:
    """Any seal will do."""


def _wrong(field: bytes) -> Flaw:
    return Flaw(
        "wrong signature",
        f"its signature, with key {_shown(field)!r}, is wrong: it was changed, or meant for another subject or "
        "receiver, or the two sides have different keys of that id",
    )


def _shown(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")


def sealed_at(data: bytes) -> float | None:
    """The time in the seal of a message that was verified, in seconds since the epoch; None: it has none."""
    return int.from_bytes(data[_TIME:_HEAD], "big") / 1e9 if data[:_KEY] == MAGIC else None


def new_key(id: str) -> str:
    """A new key as text. Raises ConfigurationError for an id that is none."""
    _field(id)
    return f"{id}:{base64.b64encode(os.urandom(_MIN_SECRET)).decode()}"


def _read(word: str, number: int, where: str) -> tuple[str, bytes]:
    match = _LINE.fullmatch(word)
    secret = b""
    if match is not None:
        try:
            padded = match[2].rstrip("=") + "=" * (-len(match[2].rstrip("=")) % 4)
            secret = base64.b64decode(padded.translate(str.maketrans("-_", "+/")), validate=True)
        except binascii.Error:
            secret = b""  # chained, its own error could show the key
    if match is None or len(secret) < _MIN_SECRET:
        raise ConfigurationError(f"Key {number} in {where} is no {_FORM}.")
    return match[1], secret


def _field(id: str) -> bytes:
    if re.fullmatch(r"[A-Za-z0-9_-]{1,8}", id) is None:
        raise ConfigurationError(f"{id!r} is no id of a key: use 1 to 8 letters, digits, - or _.")
    return id.encode().ljust(8, b"\0")


def _count(ids: Sequence[str]) -> str:
    return f"is key {ids[0]}" if len(ids) == 1 else f"are keys {', '.join(ids)}"
