"""Streams and consumers as plain data, created idempotently.

What exists is compared by the settings named here only, so that an
administrator may add others (a description, a placement).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from genro_nats.errors import StreamError, StreamMismatchError
from genro_nats.transport.jetstream import JetStream

__all__ = [
    "ConsumerSpec",
    "ConsumerState",
    "StreamSpec",
    "consumer_exists",
    "consumer_state",
    "ensure_consumer",
    "ensure_stream",
]

_SECOND: Final = 1_000_000_000
_NO_STREAM: Final = 10059
_NO_CONSUMER: Final = 10014
_EXISTS: Final = (10058, 10148, 10013)  # stream, consumer, consumer name: with other settings


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream. Ages and windows are in seconds; 0 keeps messages for ever.

    ``discard="new"`` refuses messages over a limit; "old" drops the oldest ones, silently.
    ``republish``: a filter and a destination; what is stored on a subject of the filter is then told
    to the subscribers of the destination, where ``{{wildcard(1)}}`` is what the first ``*`` met.
    Unlike subscribers of the stream's own subjects they never hear what the stream refused.
    """

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "workqueue", "interest"] = "limits"
    storage: Literal["file", "memory"] = "file"
    replicas: int = 1
    max_age: float = 0.0
    max_messages: int = -1
    max_messages_per_subject: int = -1
    discard: Literal["old", "new"] = "old"
    duplicate_window: float = 120.0
    allow_direct: bool = False
    allow_msg_ttl: bool = False
    allow_msg_schedules: bool = False
    republish: tuple[str, str] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings by the server's names."""
        window = min(self.duplicate_window, self.max_age or self.duplicate_window)
        return {
            "name": self.name,
            "subjects": list(self.subjects),
            "retention": self.retention,
            "storage": self.storage,
            "num_replicas": self.replicas,
            "max_age": int(self.max_age * _SECOND),
            "max_msgs": self.max_messages,
            "max_msgs_per_subject": self.max_messages_per_subject,
            "discard": self.discard,
            "duplicate_window": int(window * _SECOND),
            "allow_direct": self.allow_direct,
            "allow_msg_ttl": self.allow_msg_ttl,
            "allow_msg_schedules": self.allow_msg_schedules,
            "republish": {"src": self.republish[0], "dest": self.republish[1]} if self.republish else None,
        }


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acknowledgement.

    ``ack_wait``: seconds after which what nobody acknowledged or extended is given to
    another. ``max_ack_pending`` and ``max_waiting`` are for the fleet, not one worker.
    Deliveries are not limited here: a message at such a limit would stay in the stream for ever.
    """

    name: str
    filters: tuple[str, ...] = ()
    ack_wait: float = 15.0
    max_ack_pending: int = 100_000
    max_waiting: int = 10_000

    def settings(self) -> dict[str, Any]:
        """The settings by the server's names."""
        single = len(self.filters) == 1
        return {
            "durable_name": self.name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": int(self.ack_wait * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
            "max_waiting": self.max_waiting,
            "filter_subject": self.filters[0] if single else "",
            "filter_subjects": [] if single else list(self.filters),
        }


class ConsumerState(NamedTuple):
    """``pending``: never delivered; ``unacknowledged``: delivered and not settled; ``waiting``: pulls."""

    pending: int
    unacknowledged: int
    redelivered: int
    waiting: int


async def ensure_stream(js: JetStream, spec: StreamSpec) -> None:
    """Create the stream, unless it exists with these settings.

    Raises:
        StreamMismatchError: it exists with others.
        ServerTooOldError: the server lacks a feature that the stream uses.
        StreamError: the server refused it: another stream has a subject of it, no room is left.
    """
    if spec.allow_msg_ttl:
        js.require(f"Stream {spec.name}: a time to live per message", (2, 11))
    if spec.allow_msg_schedules:
        js.require(f"Stream {spec.name}: message schedules", (2, 12))
    await _ensure(
        js, f"Stream {spec.name}", spec.settings(), f"STREAM.INFO.{spec.name}", f"STREAM.CREATE.{spec.name}"
    )


async def ensure_consumer(js: JetStream, stream: str, spec: ConsumerSpec) -> None:
    """Create the consumer, unless it exists with these settings. Raises as ``ensure_stream``."""
    if len(spec.filters) > 1:
        js.require(f"Consumer {spec.name}: several filters", (2, 10))
    where = f"{stream}.{spec.name}"
    await _ensure(
        js,
        f"Consumer {spec.name} of stream {stream}",
        spec.settings(),
        f"CONSUMER.INFO.{where}",
        f"CONSUMER.CREATE.{where}",
        stream,
    )


async def consumer_exists(js: JetStream, stream: str, consumer: str) -> bool:
    """Is there a consumer of that name, and its stream? Raises as ``JetStream.api``."""
    try:
        await js.api(f"CONSUMER.INFO.{stream}.{consumer}")
    except StreamError as error:
        if error.code in (_NO_STREAM, _NO_CONSUMER):
            return False
        raise
    return True


async def consumer_state(js: JetStream, stream: str, consumer: str) -> ConsumerState:
    """What a consumer has before it. Raises StreamError if there is none."""
    info = await js.api(f"CONSUMER.INFO.{stream}.{consumer}")
    return ConsumerState(
        info["num_pending"], info["num_ack_pending"], info["num_redelivered"], info["num_waiting"]
    )


async def _ensure(
    js: JetStream, shown: str, wanted: dict[str, Any], info: str, create: str, stream: str = ""
) -> None:
    found = await _settings(js, info)
    if found is None:
        body = {"stream_name": stream, "config": wanted, "action": "create"} if stream else wanted
        try:
            await js.api(create, body)
        except StreamError as error:
            if error.code not in _EXISTS:
                raise
            found = await _settings(js, info)  # somebody else was faster
    if found is not None:
        _compare(shown, wanted, found)


async def _settings(js: JetStream, info: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = (await js.api(info))["config"]
    except StreamError as error:
        if error.code in (_NO_STREAM, _NO_CONSUMER) and not (
            error.code == _NO_STREAM and info.startswith("CONSUMER.")
        ):
            return None
        raise
    return found


def _compare(shown: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    # The server leaves out what is false, empty or zero.
    unlike = [key for key, value in wanted.items() if _plain(value) != _plain(found.get(key))]
    if not unlike:
        return
    here = {key: wanted[key] for key in unlike}
    there = {key: found.get(key) for key in unlike}
    raise StreamMismatchError(
        f"{shown} exists with other settings: wanted {_listed(here)}; found {_listed(there)}. "
        "Ask for what it has, use another prefix, or change it with the nats tool.",
        name=shown,
        wanted=here,
        found=there,
    )


def _plain(value: Any) -> Any:
    return (sorted(value) if isinstance(value, list) else value) or None


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in settings.items())
