"""Is a signed task perhaps a recorded one that somebody stored again?

The server refuses a message whose id it has seen within the last half minute. So one that
was stored within seconds of its signing, under its task's id, is no copy. Any other is looked
up before it runs: a delayed task, one of a caller whose clock is wrong, or a copy.
"""

from __future__ import annotations

from typing import Final

from genro_nats.codec.signing import Flaw
from genro_nats.tasks.streams import DUPLICATES
from genro_nats.transport.delivery import Delivery
from genro_nats.transport.direct import next_message
from genro_nats.transport.jetstream import JetStream
from genro_nats.transport.publisher import ID
from genro_nats.transport.schedules import fired_by
from genro_nats.transport.subjects import is_schedule

__all__ = ["doubtful", "is_copy"]

_CLOCKS: Final = DUPLICATES / 2  # seconds by which the clocks of caller and server may differ
_COPY: Final = Flaw(
    "replayed", "its task is queued already: somebody recorded the message and stored it again"
)


def doubtful(delivery: Delivery) -> bool:
    """Could it be a copy?"""
    sealed = delivery.sealed_at
    if sealed is None or is_schedule(fired_by(delivery.headers)):
        return False  # nobody signs here; or it is a schedule's run, whose id nobody had before
    named = delivery.headers.get(ID) == delivery.subject.rpartition(".")[2]
    return not named or abs(delivery.info.stored_at - sealed) > _CLOCKS


async def is_copy(js: JetStream, delivery: Delivery) -> Flaw | None:
    """What is wrong with it if the task it says to be is queued, and perhaps running, by another message."""
    info = delivery.info
    first = await next_message(js, info.stream, delivery.subject)
    return _COPY if first is not None and first.seq < info.stream_seq else None
