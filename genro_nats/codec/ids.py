"""Many call ids in the body of one frame, which beats, acknowledgements and questions carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from genro_nats.codec.frame import Buffer

__all__ = ["batches", "split_ids"]

_TOGETHER: Final = 2048  # ids in one message at most
_SIZE: Final = 16  # bytes of an id

T = TypeVar("T")


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items (ids, or what has them) in their order, as many at a time as one message may carry."""
    for at in range(0, len(items), _TOGETHER):
        yield items[at : at + _TOGETHER]


def split_ids(body: Buffer) -> list[bytes]:
    """The ids that a frame's body carries."""
    data = bytes(body)
    return [data[at : at + _SIZE] for at in range(0, len(data), _SIZE)]
