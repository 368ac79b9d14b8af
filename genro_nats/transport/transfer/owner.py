"""The owner's side: keeps payloads, and sends of them what pullers have granted.

Pulls are served in turns, a chunk each, so that a large payload does not hold
up a smaller one. Nothing is sent that was not asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence, Set
from itertools import accumulate
from typing import Final

from genro_nats.codec.frame import Buffer, Frame, FrameKind, size
from genro_nats.codec.reference import Reference
from genro_nats.errors import DecodeError, ExecutorError, PermissionDeniedError
from genro_nats.transport.abandoned import drop_task
from genro_nats.transport.denials import Denied
from genro_nats.transport.shared import beside
from genro_nats.transport.transfer.line import Line

__all__ = ["PULL", "Owner"]

log: Final = logging.getLogger("genro_nats.transport")

PULL: Final = struct.Struct("!16sQQ")  # payload id, from where, up to where
GRANT: Final = struct.Struct("!Q")
FORGOTTEN: Final = 60.0  # seconds
_BEAT: Final = 0.5  # seconds that a pull waits for its turn before its puller is told, and between two words
_BEAT_IDS: Final = 128  # pulls in one word


class _Payload:
    """Bytes laid end to end, and how far they were ever sent."""

    __slots__ = ("_ends", "_parts", "moved", "on_moved", "once", "sent", "serving", "size")

    def __init__(
        self, parts: Sequence[Buffer], now: float, on_moved: Callable[[], None] | None, once: bool
    ) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts if size(part)]
        self._ends = list(accumulate(map(len, self._parts)))
        self.size = self._ends[-1] if self._ends else 0
        self.sent = 0
        self.moved = now
        self.on_moved = on_moved
        self.once = once
        self.serving: _Serving | None = None

    def free(self) -> None:
        """Let go of the bytes, whoever still knows this object."""
        parts, self._parts = self._parts, []
        beside(parts.clear, self.size)

    def pieces(self, at: int, end: int) -> list[memoryview]:
        """The bytes from ``at`` to ``end``, not copied."""
        found = []
        number = bisect_right(self._ends, at)
        while at < end:
            part, begin = self._parts[number], self._ends[number] - len(self._parts[number])
            piece = part[at - begin : end - begin]
            found.append(piece)
            at += len(piece)
            number += 1
        return found


class _Serving:
    """One pull of a payload: sent up to ``at``, granted up to ``limit``."""

    __slots__ = ("at", "limit", "payload", "pull", "queued", "subject", "told")

    def __init__(self, payload: _Payload, pull: bytes, subject: str, at: int, limit: int, now: float) -> None:
        self.payload = payload
        self.pull = pull
        self.subject = subject
        self.at = at
        self.limit = limit
        self.queued = False
        self.told = now  # when its puller last got anything


class Owner:
    """Payloads that others may pull, by id."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._payloads: dict[bytes, _Payload] = {}
        self._servings: dict[bytes, _Serving] = {}
        self._turns: deque[_Serving] = deque()
        self._work = asyncio.Event()
        self._beaten = 0.0
        self._sending = self._loop.create_task(self._send())
        self.moved_at = 0.0  # when something was last asked for or sent, in event loop time
        self.on_denied: Callable[[bytes, PermissionDeniedError], None] | None = None
        line.connection.on_down.append(self._forget_servings)
        line.connection.denials.listeners.append(self._denied)

    def __len__(self) -> int:
        return len(self._payloads)

    def offer(
        self, parts: Sequence[Buffer], on_moved: Callable[[], None] | None = None, *, once: bool = False
    ) -> Reference:
        """Keep a payload until ``drop``; ``on_moved`` is called when it is asked for and for each chunk.

        ``once``: drop it too when its puller is done, or nothing of it was asked for in a minute.
        """
        id = os.urandom(16)
        payload = self._payloads[id] = _Payload(parts, self._loop.time(), on_moved, once)
        return Reference(id, payload.size, self._line.owner_subject)

    def drop(self, id: bytes) -> None:
        """Nobody gets this payload any more."""
        payload = self._payloads.pop(id, None)
        if payload is not None:
            self._end(payload)
            payload.free()

    def delivered(self, id: bytes) -> bool:
        """May somebody have the whole payload? True also for one that was dropped."""
        payload = self._payloads.get(id)
        return payload is None or payload.sent >= payload.size

    @property
    def payloads(self) -> Set[bytes]:
        """The ids of those that are kept."""
        return self._payloads.keys()

    @property
    def size(self) -> int:
        """Bytes of all payloads that are kept."""
        return sum(payload.size for payload in self._payloads.values())

    def sweep(self) -> None:
        """Drop what is kept for one puller that has not been heard of for a minute."""
        now = self._loop.time()
        for id, payload in list(self._payloads.items()):
            if payload.once and now - payload.moved > FORGOTTEN:
                self.drop(id)

    async def aclose(self) -> None:
        """Drop all."""
        self._sending.cancel()
        await asyncio.wait([self._sending])
        self._payloads.clear()
        self._forget_servings()

    def abandon(self) -> None:
        """Drop all, for an event loop that may never run again."""
        self._payloads.clear()
        if not self._sending.done():
            drop_task(self._sending)

    # -- what pullers ask ---------------------------------------------------

    def pull(self, frame: Frame) -> None:
        """Begin to send a payload, or begin anew from another place. Raises DecodeError."""
        subject = frame.name.decode("ascii", "replace")
        if len(frame.body) != PULL.size or not self._line.is_peer(subject):
            raise DecodeError("A pull that is not laid out as one.", id=frame.id)
        id, at, limit = PULL.unpack(frame.body)
        payload = self._payloads.get(id)
        if payload is None or at > payload.size:
            self._line.post(subject, Frame(FrameKind.GONE, frame.id))
            return
        # A puller that asks again has lost what was under way; nobody else may pull it.
        self._end(payload)
        limit, now = min(limit, payload.size), self._loop.time()
        serving = payload.serving = _Serving(payload, frame.id, subject, at, limit, now)
        self._servings[frame.id] = serving
        self._queue(serving)
        if payload.on_moved is not None:
            payload.on_moved()

    def grant(self, frame: Frame) -> None:
        """A puller has room for more. Raises DecodeError."""
        if len(frame.body) != GRANT.size:
            raise DecodeError("A grant that is not laid out as one.", id=frame.id)
        serving = self._servings.get(frame.id)
        if serving is not None:
            (limit,) = GRANT.unpack(frame.body)
            serving.limit = max(serving.limit, min(limit, serving.payload.size))
            self._queue(serving)

    def done(self, frame: Frame) -> None:
        """A puller has all it wants."""
        serving = self._servings.get(frame.id)
        if serving is not None:
            self._end(serving.payload)
        payload = self._payloads.get(bytes(frame.body))
        if payload is not None and payload.once:
            self.drop(bytes(frame.body))

    def _queue(self, serving: _Serving) -> None:
        serving.payload.moved = self.moved_at = self._loop.time()
        if not serving.queued and serving.at < serving.limit:
            serving.queued = True
            self._turns.append(serving)
            self._work.set()

    def _end(self, payload: _Payload) -> None:
        serving, payload.serving = payload.serving, None
        if serving is not None:
            serving.limit = 0
            self._servings.pop(serving.pull, None)

    def _forget_servings(self) -> None:
        """Pullers ask again once there is a connection."""
        for serving in list(self._servings.values()):
            self._end(serving.payload)

    def _denied(self, denied: Denied) -> bool:
        """The server does not let us send to a puller."""
        if not denied.publishing:
            return False
        owners = {serving.payload: id for id, serving in self._by_payload() if denied.meets(serving.subject)}
        for payload, id in owners.items():
            self._end(payload)
            if self.on_denied is not None:
                self.on_denied(id, denied.error())
        return bool(owners) and self.on_denied is not None

    def _by_payload(self) -> list[tuple[bytes, _Serving]]:
        return [(id, one.serving) for id, one in self._payloads.items() if one.serving is not None]

    # -- sending ------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            await self._work.wait()
            while self._turns:
                await self._turn(self._turns.popleft())
                self._beat(self._loop.time())
                await asyncio.sleep(0)  # small calls get theirs
            self._work.clear()

    async def _turn(self, serving: _Serving) -> None:
        serving.queued = False
        if serving.at < serving.limit:
            await self._send_chunk(serving)
            self._queue(serving)

    def _beat(self, now: float) -> None:
        """Tell the pullers that wait long that they do: elsewhere nothing of this side may be seen."""
        if now - self._beaten < _BEAT:
            return
        self._beaten = now
        waiting: dict[str, list[bytes]] = {}
        for serving in self._turns:
            if serving.limit > serving.at and now - serving.told >= _BEAT:
                serving.told = now
                waiting.setdefault(self._line.peer_of(serving.subject), []).append(serving.pull)
        for subject, pulls in waiting.items():
            for at in range(0, len(pulls), _BEAT_IDS):
                body = b"".join(pulls[at : at + _BEAT_IDS])
                self._line.post(subject, Frame(FrameKind.BEAT, body=body))

    async def _send_chunk(self, serving: _Serving) -> None:
        payload, at = serving.payload, serving.at
        end = min(at + self._line.chunk, serving.limit)
        serving.at = end
        serving.told = self._loop.time()
        payload.sent = max(payload.sent, end)  # from here on it may arrive
        try:
            await self._line.send(serving.subject, serving.pull, at, payload.pieces(at, end), end - at)
        except ExecutorError as error:
            log.debug("a chunk could not be sent: %s", error)
            self._end(payload)
            return
        if payload.on_moved is not None:
            payload.on_moved()
