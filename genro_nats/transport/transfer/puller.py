"""The receiver's side: pulls payloads from their owners, chunk by chunk, into a sink."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from genro_nats.codec.frame import Frame, FrameKind
from genro_nats.codec.reference import Reference
from genro_nats.codec.signing import Flaw
from genro_nats.errors import ConnectionLostError, DecodeError, ExecutorError, TransportError
from genro_nats.transport.denials import Denied
from genro_nats.transport.reader import Feed
from genro_nats.transport.transfer.credit import GIVE_UP, Step, Window
from genro_nats.transport.transfer.line import Line
from genro_nats.transport.transfer.owner import GRANT, PULL

__all__ = ["AT_ONCE", "Puller", "Sink"]

AT_ONCE: Final = 4  # pulls at the same time; the others wait for their turn
_LOOK: Final = 0.25  # seconds


class Sink(Protocol):
    """Where a payload goes. ``write`` gets its bytes in order, in pieces that are only lent."""

    def write(self, piece: memoryview) -> object: ...


class _Pull:
    __slots__ = ("done", "id", "on_moved", "reference", "sink", "window")

    def __init__(
        self, reference: Reference, sink: Sink, window: Window, on_moved: Callable[[], None] | None
    ) -> None:
        self.id = b""
        self.reference = reference
        self.sink = sink
        self.window = window
        self.on_moved = on_moved
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # a pull that was cancelled does not look at it


class Puller:
    """Pulls in progress, by id; each question gets a new one, so that late chunks of the last are known."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._pulls: dict[bytes, _Pull] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        line.connection.denials.listeners.append(self._denied)

    async def pull(
        self, reference: Reference, sink: Sink, on_moved: Callable[[], None] | None = None
    ) -> None:
        """Pull a payload into ``sink``; ``on_moved`` is called whenever bytes came.

        Cancelling it tells the owner to stop.

        Raises:
            ConnectionLostError: its owner is gone, or fell silent for ten seconds.
            PermissionDeniedError: the server does not let us ask its owner.
            DecodeError: what comes is not what was announced; and whatever the sink raises.
        """
        if not self._line.is_peer(reference.owner):
            raise DecodeError(f"A reference to {reference.owner!r}, which is no owner's subject here.")
        async with self._turns:
            pull = _Pull(reference, sink, Window(reference.size, self._loop.time()), on_moved)
            try:
                self._ask(pull)
                while not pull.done.done():
                    await asyncio.wait([pull.done], timeout=_LOOK)
                    self._look(pull)
                pull.done.result()
            finally:
                self._pulls.pop(pull.id, None)
                pull.done.cancel()
                self._line.post(reference.owner, Frame(FrameKind.DONE, pull.id, body=reference.payload))

    def _ask(self, pull: _Pull) -> None:
        """Ask for the rest of a payload."""
        self._pulls.pop(pull.id, None)
        pull.id = os.urandom(16)
        self._pulls[pull.id] = pull
        limit = pull.window.ask(self._loop.time())
        body = PULL.pack(pull.reference.payload, pull.window.got, limit)
        name = self._line.pull_subject(pull.id).encode()
        self._line.post(pull.reference.owner, Frame(FrameKind.PULL, pull.id, name, body=body), pull.id)

    def _look(self, pull: _Pull) -> None:
        if pull.done.done():
            return
        step = pull.window.look(self._loop.time(), self._line.online)
        if step is Step.ASK:
            self._ask(pull)
        elif step is Step.GIVE_UP:
            pull.fail(self._silent(pull))

    def _denied(self, denied: Denied) -> bool:
        if not denied.publishing:
            return False
        pulls = [pull for pull in self._pulls.values() if denied.meets(pull.reference.owner)]
        for pull in pulls:
            pull.fail(denied.error(pull.reference.owner))
        return bool(pulls)

    def _silent(self, pull: _Pull) -> TransportError:
        window = pull.window
        return ConnectionLostError(
            f"A payload of {window.size:,} bytes stopped after {window.got:,}: its owner is gone, "
            f"or has been silent for {GIVE_UP:g} s.",
            url=self._line.connection.shown,
        )

    # -- what comes in ------------------------------------------------------

    def chunk(self, id: bytes, offset: int, length: int) -> Feed | None:
        """A chunk begins: what takes its bytes, or None for one that nobody waits for."""
        pull = self._pulls.get(id)
        if pull is None or pull.done.done():
            return None
        if not pull.window.fits(offset, length):
            window = pull.window
            pull.fail(
                DecodeError(
                    f"A chunk of {length:,} bytes at {offset:,} of a payload of {window.size:,} "
                    f"of which {window.got:,} have come and {window.limit:,} were asked for.",
                    id=id,
                )
            )
            return None
        return lambda piece: self._add(pull, id, piece)

    def _add(self, pull: _Pull, id: bytes, piece: memoryview) -> None:
        if pull.id != id or pull.done.done():
            return  # the rest of a chunk of a pull that has ended, or begun anew
        window = pull.window
        try:
            pull.sink.write(piece)
        except Exception as error:  # of the sink's own making, and the pull's to tell
            pull.fail(error)
            return
        window.add(len(piece), self._loop.time())
        if pull.on_moved is not None:
            pull.on_moved()
        if window.complete:
            pull.done.set_result(None)
        elif (limit := window.grant()) is not None:
            self._line.post(pull.reference.owner, Frame(FrameKind.GRANT, id, body=GRANT.pack(limit)))

    def gone(self, id: bytes) -> None:
        """The owner has no such payload."""
        if (pull := self._pulls.get(id)) is not None:
            size = pull.reference.size
            pull.fail(ExecutorError(f"Its owner does not have the payload of {size:,} bytes any more."))

    def flawed(self, id: bytes, flaw: Flaw) -> None:
        """What came for it was refused."""
        if (pull := self._pulls.get(id)) is not None:
            pull.fail(
                flaw.error(
                    f"A payload of {pull.reference.size:,} bytes ended at a piece that can't be trusted"
                )
            )

    def absent(self, id: bytes) -> None:
        """Nobody hears the owner's subject."""
        if (pull := self._pulls.get(id)) is not None:
            pull.window.absent(self._loop.time())
