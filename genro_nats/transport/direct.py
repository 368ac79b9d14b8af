"""Reading and purging by subject, without consumers; the stream needs ``allow_direct``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from genro_nats.codec.signing import Flaw
from genro_nats.errors import ConfigurationError, StreamError
from genro_nats.transport.jetstream import API, JetStream, refusal
from genro_nats.transport.nats import Message
from genro_nats.transport.times import to_rfc3339

__all__ = ["StoredMessage", "get_last", "multi_last", "next_message", "purge_subject", "scan"]

_TOGETHER: Final = 500  # subjects in one request; a server gives at most 1024 results
_PAGE: Final = 2000  # messages in one request of a scan
_TIMEOUT: Final = 5.0  # seconds
_MAX_BYTES: Final = 16 << 20  # in one answer; a server cuts off clients that are too far behind
_NOT_FOUND: Final = "404"
_END: Final = "204"


class StoredMessage(NamedTuple):
    """A message as the stream holds it. ``time``: when it was stored, RFC 3339, the server's clock.

    ``flaw``: why it must not be believed; then it has no data.
    """

    subject: str
    seq: int
    time: str
    headers: Mapping[str, str]
    data: bytes
    flaw: Flaw | None = None


async def get_last(js: JetStream, stream: str, subject: str) -> StoredMessage | None:
    """The last message on a subject (wildcards work), or None.

    Raises:
        StreamUnavailableError, ConnectionLostError: no answer for ten seconds, or no ``allow_direct``.
    """
    # Permissions can be given for this form, not for one with the subject in the body. Wildcards work here too.
    where = f"{API}DIRECT.GET.{stream}.{subject}"
    found = await _single(js, where, b"")
    if found is not None and found.subject != subject and not _wild(subject):
        raise StreamError(f"{where} gave a message on {found.subject}.", subject=subject, code=0)
    return found


async def next_message(
    js: JetStream, stream: str, subject_filter: str, *, start_seq: int = 1, start_time: float | None = None
) -> StoredMessage | None:
    """The first message on a subject (wildcards work) from a sequence or a time on, or None.

    ``start_time``: seconds since the epoch by the server's clock, instead of ``start_seq``.
    Raises as ``get_last``.
    """
    if start_time is not None:
        js.require("Reading from a time on", (2, 11))
    body = {"next_by_subj": subject_filter, **_begin(start_seq, start_time)}
    return await _single(js, f"{API}DIRECT.GET.{stream}", json.dumps(body).encode())


async def scan(
    js: JetStream,
    stream: str,
    subject_filter: str,
    *,
    start_seq: int = 1,
    limit: int,
    start_time: float | None = None,
) -> list[StoredMessage]:
    """The first ``limit`` messages on a subject (wildcards work), in the order of the stream.

    ``start_seq``, ``start_time``: as of ``next_message``. Raises as ``get_last``.
    """
    js.require("Reading many messages at once", (2, 11))
    found: list[StoredMessage] = []
    body = {"next_by_subj": subject_filter, "max_bytes": _MAX_BYTES, **_begin(start_seq, start_time)}
    while len(found) < limit:
        page, left = await _page(js, stream, {**body, "batch": min(limit - len(found), _PAGE)})
        found += page
        if not left:
            break
        body.pop("start_time", None)
        body["seq"] = found[-1].seq + 1
    return found


async def multi_last(js: JetStream, stream: str, subjects: Sequence[str]) -> dict[str, StoredMessage]:
    """The last message of each subject that has one, by subject. Raises as ``get_last``."""
    js.require("Reading many subjects at once", (2, 11))
    found: dict[str, StoredMessage] = {}
    for begin in range(0, len(subjects), _TOGETHER):
        for message in await _multi_last(js, stream, subjects[begin : begin + _TOGETHER]):
            found[message.subject] = message
    return found


async def _multi_last(js: JetStream, stream: str, subjects: Sequence[str]) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    body: dict[str, Any] = {"multi_last": list(subjects), "batch": len(subjects), "max_bytes": _MAX_BYTES}
    while True:
        page, left = await _page(js, stream, body)
        found += page
        if not left:
            return found
        # What is replaced while we read has a higher sequence, so it is met again, not missed.
        body["seq"] = found[-1].seq + 1


async def _single(js: JetStream, request: str, data: bytes) -> StoredMessage | None:
    async def attempt() -> StoredMessage | None:
        reply = await js.requester.request(request, data, timeout=_TIMEOUT)
        if reply.status == _NOT_FOUND:
            return None
        if reply.status and "Nats-Sequence" not in reply.headers:
            raise refusal(reply, request)
        return _stored(js, reply)

    return await js.insist(attempt)


async def _page(js: JetStream, stream: str, body: Mapping[str, Any]) -> tuple[list[StoredMessage], bool]:
    """The messages of one answer, and whether more are left."""
    request = f"{API}DIRECT.GET.{stream}"

    async def attempt() -> list[Message]:
        replies = await js.requester.series(request, json.dumps(body).encode(), timeout=_TIMEOUT)
        if replies[-1].status not in (_END, _NOT_FOUND):
            raise refusal(replies[-1], request)
        return replies

    *messages, end = await js.insist(attempt)
    left = end.headers.get("Nats-Num-Pending", "0") != "0"
    if left and not messages:
        raise StreamError(f"{request} gave nothing, and says that more is left.", subject=request, code=0)
    return [_stored(js, message) for message in messages], left


def _begin(start_seq: int, start_time: float | None) -> dict[str, Any]:
    return {"seq": start_seq} if start_time is None else {"start_time": to_rfc3339(start_time)}


async def purge_subject(js: JetStream, stream: str, subject: str) -> int:
    """Remove the messages of one exact subject; how many there were.

    Raises:
        ConfigurationError: a subject with wildcards.
        StreamError, StreamUnavailableError, ConnectionLostError: as ``JetStream.api``.
    """
    if not subject or _wild(subject):
        raise ConfigurationError(f"Purging takes one exact subject, not {subject!r}.")
    purged: int = (await js.api(f"STREAM.PURGE.{stream}", {"filter": subject}))["purged"]
    return purged


def _stored(js: JetStream, message: Message) -> StoredMessage:
    headers = message.headers
    opened = js.connection.guard.open_stored(headers["Nats-Subject"], message.data, headers)
    flaw = opened if isinstance(opened, Flaw) else None
    return StoredMessage(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        headers["Nats-Time-Stamp"],
        headers,
        b"" if isinstance(opened, Flaw) else opened,
        flaw,
    )


def _wild(subject: str) -> bool:
    return any(token in ("*", ">") for token in subject.split("."))
