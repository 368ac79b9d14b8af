"""What the meta of a call's frame says, beside the function's field."""

from __future__ import annotations

import json
from typing import Any

from genro_nats.codec.by_value import FIELD_SIZE
from genro_nats.codec.frame import Flag, Frame
from genro_nats.errors import DecodeError

__all__ = ["facts_in"]


def facts_in(frame: Frame) -> dict[str, Any]:
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
