"""Large frames are compressed and expanded in a thread: the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio

from genro_nats.codec.compression import expand, expands_large, is_large, press
from genro_nats.codec.frame import Flag, Frame

__all__ = ["expand_apart", "press_apart"]


async def press_apart(frame: Frame, algorithm: str | None) -> Frame:
    """As ``press``. What buffers hold must not change meanwhile, or some of both is sent."""
    if algorithm is None or frame.flags & Flag.COMPRESSED or not is_large(frame):
        return press(frame, algorithm)
    return await asyncio.to_thread(press, frame, algorithm)


async def expand_apart(frame: Frame, limit: int) -> Frame:
    """As ``expand``."""
    if not expands_large(frame):
        return expand(frame, limit)
    return await asyncio.to_thread(expand, frame, limit)
