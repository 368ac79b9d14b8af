"""A worker's functions by value: fetched from a caller when first needed, once however many calls wait.

The worker's parent checks each against its digest and keeps it for its children; it unpickles nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from genro_nats.codec.by_value import FunctionField, digest_of
from genro_nats.codec.frame import Flag, Frame, FrameKind, check, encode, peek
from genro_nats.codec.lru import ByteLRU
from genro_nats.codec.reference import Reference, referred
from genro_nats.errors import DecodeError, ExecutorError, FunctionNotFoundError, PayloadTooLargeError
from genro_nats.transport.nats import Connection
from genro_nats.transport.outbox import Outbox
from genro_nats.transport.pipe import Parts
from genro_nats.transport.transfer.transfer import Transfer
from genro_nats.worker.intake import new_room

__all__ = ["FunctionShelf", "Needed"]

ASK_AGAIN: Final = 2.0  # seconds without an answer after which a caller is asked again, or another one
GIVE_UP: Final = 10.0  # seconds without an answer after which a caller's calls end


class _Kept(NamedTuple):
    """A function as children are given it: a ``CarriedFunction``."""

    digest: bytes
    size: int
    parts: Parts


class Needed(NamedTuple):
    """A call that can't begin without its function, and where its caller hears."""

    id: bytes
    function: str
    caller: str
    reply: str


class _Waiter:
    def __init__(self, call: Needed) -> None:
        self.call = call
        self.silent = 0.0  # seconds that its caller was asked in vain
        self.found: asyncio.Future[_Kept] = asyncio.get_running_loop().create_future()


class _Flight:
    """One function on its way, and the calls that wait for it."""

    def __init__(self) -> None:
        self.waiters: dict[bytes, _Waiter] = {}
        self.asked: _Waiter | None = None
        self.answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

    def turn(self) -> _Waiter:
        """Whose caller is asked next: who was asked in vain for the shortest time."""
        self.asked = min(self.waiters.values(), key=lambda waiter: waiter.silent)
        self.answer = asyncio.get_running_loop().create_future()
        return self.asked

    def found(self, function: _Kept) -> None:
        for waiter in self.waiters.values():
            if not waiter.found.done():
                waiter.found.set_result(function)
        self.waiters.clear()

    def failed(self, caller: str, error: ExecutorError) -> None:
        """This caller's calls can't have it."""
        for id, waiter in list(self.waiters.items()):
            if waiter.call.caller == caller:
                del self.waiters[id]
                if not waiter.found.done():
                    waiter.found.set_exception(error)


class FunctionShelf:
    """All functions by value of a worker, ``limit`` bytes kept, for all its pools."""

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        transfer: Transfer,
        limit: int,
        on_event: Callable[..., object],
    ) -> None:
        self._connection = connection
        self._outbox = outbox
        self._transfer = transfer
        self._on_event = on_event
        self._kept: ByteLRU[bytes, _Kept] = ByteLRU(limit)
        self._flights: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.fetched = 0

    def get(self, digest: bytes) -> _Kept | None:
        """A function that is here."""
        return self._kept.get(digest)

    async def fetch(self, field: FunctionField, call: Needed, limit: int) -> _Kept:
        """The function, from a caller that waits for a call of it; ``limit``: bytes that it may take.

        Raises:
            FunctionNotFoundError: the caller does not answer for ten seconds, or does not have it.
            DecodeError: what came has another digest.
            ExecutorError: it could not be pulled.
        """
        if field.size > limit:
            raise PayloadTooLargeError(
                f"The function {call.function}, sent by value, takes {field.size:,} bytes; this worker takes "
                f"{limit:,} (max_payload_size).",
                size=field.size,
                limit=limit,
            )
        found = self._kept.get(field.digest)
        if found is not None:
            return found
        flight = self._flights.get(field.digest)
        if flight is None:
            flight = self._flights[field.digest] = _Flight()
            self._begin(field, flight)
        waiter = flight.waiters[call.id] = _Waiter(call)
        try:
            return await waiter.found
        finally:
            flight.waiters.pop(call.id, None)

    def received(self, frame: Frame) -> None:
        """A FUNCTION or GONE frame came for this worker; one that nobody asked for means nothing."""
        try:
            flight = self._flights.get(bytes.fromhex(frame.name.decode()))
        except ValueError:
            return
        if flight is None or flight.asked is None or flight.answer.done():
            return
        if flight.asked.call.id == frame.id:
            flight.answer.set_result(frame)

    def _begin(self, field: FunctionField, flight: _Flight) -> None:
        task = asyncio.get_running_loop().create_task(self._fly(field, flight))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(self, field: FunctionField, flight: _Flight) -> None:
        try:
            while flight.waiters:
                waiter = flight.turn()
                frame = await self._ask(field.digest, flight, waiter)
                if frame is None:
                    self._unanswered(flight, waiter)
                    continue
                try:
                    function = await self._opened(frame, field, waiter.call)
                except Exception as error:
                    flight.failed(waiter.call.caller, _named(error, waiter.call.function))
                else:
                    self._kept.put(field.digest, function, function.size)
                    self.fetched += 1
                    self._on_event("function.fetched", function=waiter.call.function, bytes=function.size)
                    flight.found(function)
        finally:
            del self._flights[field.digest]
            for waiter in flight.waiters.values():
                waiter.found.cancel()

    async def _ask(self, digest: bytes, flight: _Flight, waiter: _Waiter) -> Frame | None:
        call = waiter.call
        frame = Frame(FrameKind.FETCH, call.id, digest.hex().encode())
        self._outbox.post(call.caller, call.reply, encode(frame))
        await asyncio.wait([flight.answer], timeout=ASK_AGAIN)
        return flight.answer.result() if flight.answer.done() else None

    def _unanswered(self, flight: _Flight, waiter: _Waiter) -> None:
        if not self._connection.connected:
            return  # no time passes: nobody could have answered
        waiter.silent += ASK_AGAIN
        if waiter.silent >= GIVE_UP:
            name = waiter.call.function
            flight.failed(
                waiter.call.caller,
                FunctionNotFoundError(
                    f"The function {name} is sent by value; its caller was asked for it and has not answered for "
                    f"{GIVE_UP:g} s. The call was not started.",
                    function=name,
                ),
            )

    async def _opened(self, frame: Frame, field: FunctionField, call: Needed) -> _Kept:
        """What an answer holds, if it is what the call named."""
        if frame.kind == FrameKind.GONE:
            raise FunctionNotFoundError(
                f"The function {call.function} is sent by value, and its caller does not have it (any more).",
                function=call.function,
            )
        if frame.flags & Flag.REFERRED:
            return await self._pulled(referred(frame.body), field, call)
        clean = Frame(FrameKind.FUNCTION, name=frame.name, body=frame.body, buffers=frame.buffers)
        data = encode(clean)
        if digest_of(data, peek(data)) != field.digest:
            raise _other(call.function)
        return _Kept(field.digest, len(data), [data])

    async def _pulled(self, reference: Reference, field: FunctionField, call: Needed) -> _Kept:
        if reference.size != field.size:
            raise _other(call.function)
        room = new_room()
        await self._transfer.pull(reference, room)
        data = room.view()
        head = check(data)
        plain = head.kind == FrameKind.FUNCTION and not head.flags and not head.n_meta
        # In a thread: calls and beats go on meanwhile.
        if not plain or await asyncio.to_thread(digest_of, data, head) != field.digest:
            raise _other(call.function)
        return _Kept(field.digest, len(data), room.parts())

    def aclose(self) -> None:
        """Fetch nothing any more."""
        for task in self._tasks:
            task.cancel()

    def facts(self) -> dict[str, Any]:
        """Counters, for an operator."""
        return {"kept": len(self._kept), "bytes": self._kept.size, "fetched": self.fetched}


def _named(error: Exception, name: str) -> ExecutorError:
    if isinstance(error, ExecutorError):
        return error
    return ExecutorError(f"The function {name} could not be fetched: {type(error).__name__}: {error}")


def _other(name: str) -> DecodeError:
    return DecodeError(
        f"The function {name} is sent by value; what its caller sent has another digest than the call says.",
        function=name,
    )
