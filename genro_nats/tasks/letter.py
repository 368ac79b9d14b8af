"""A dead letter as it is stored: facts as JSON, then the message it was."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

from genro_nats.codec.frame import Buffer
from genro_nats.errors import DecodeError
from genro_nats.tasks.backend import DeadLetter

__all__ = ["DISTRUSTED", "pack_letter", "unpack_letter"]

DISTRUSTED: Final = "signature"  # the reason of letters that hold a message as it came, with its seal
_LENGTH: Final = struct.Struct("!I")
_FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "id": str,
    "function": str,
    "reason": str,
    "error": str,
    "attempts": int,
    "deaths": int,
    "died_at": (int, float),
}


def pack_letter(letter: DeadLetter, subject: str, message: Buffer) -> bytes:
    """The stored form; ``subject``: where the message was."""
    facts = {name: getattr(letter, name) for name in _FIELDS} | {"subject": subject}
    head = json.dumps(facts).encode()
    return b"".join((_LENGTH.pack(len(head)), head, message))


def unpack_letter(data: Buffer) -> tuple[DeadLetter, str, Buffer]:
    """The letter, the subject and the message. Raises DecodeError."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        facts: dict[str, Any] = json.loads(bytes(data[4 : 4 + length]))
        known = {name: facts[name] for name in _FIELDS}
        if not all(isinstance(known[name], kind) for name, kind in _FIELDS.items()):
            raise TypeError("a field of another type")
        return DeadLetter(**known), str(facts["subject"]), memoryview(data)[4 + length :]
    except (ValueError, TypeError, KeyError, struct.error, RecursionError) as error:
        raise DecodeError(f"A dead letter that can't be read: {error!r}") from error
