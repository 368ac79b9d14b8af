"""The receiver's side: pulls payloads from their owners, chunk by chunk, into a sink."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from genro_nats.codec.frame import Buffer, Frame, FrameKind
from genro_nats.codec.reference import Reference
from genro_nats.codec.signing import Flaw
from genro_nats.errors import ConnectionLostError, DecodeError, TransportError
from genro_nats.transport.denials import Denied
from genro_nats.transport.reader import Feed
from genro_nats.transport.transfer.credit import ASK_AGAIN, GIVE_UP, STARVED, Pace, Step, Window
from genro_nats.transport.transfer.line import Line
from genro_nats.transport.transfer.owner import FORGOTTEN, GRANT, PULL
from genro_nats.transport.transfer.turns import Turn, Turns

__all__ = ["REMIND", "Puller", "Sink"]

_LOOK: Final = 0.25  # seconds
REMIND: Final = 15.0  # seconds between two words to the owner of a payload whose turn has not come


class Sink(Protocol):
    """Where a payload goes. ``write`` gets its bytes in order, in pieces that are only lent."""

    def write(self, piece: memoryview) -> object: ...


class _Pull:
    __slots__ = ("begun", "done", "id", "on_moved", "reference", "sink", "turn", "window")

    turn: Turn

    def __init__(
        self, reference: Reference, sink: Sink, window: Window, on_moved: Callable[[], None] | None
    ) -> None:
        self.id = b""
        self.reference = reference
        self.sink = sink
        self.window = window
        self.on_moved = on_moved
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()  # its turn has come, or never will
        self.done: asyncio.Future[None] = loop.create_future()

    def begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # a pull that was cancelled does not look at it
            self.begin()


class Puller:
    """Pulls in progress, by id; each question gets a new one, so that late chunks of the last are known."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._pulls: dict[bytes, _Pull] = {}
        self._turns = Turns()
        self._pace = Pace()
        self._heard = 0.0  # when anything last came
        line.connection.denials.listeners.append(self._denied)

    async def pull(
        self, reference: Reference, sink: Sink, on_moved: Callable[[], None] | None = None
    ) -> None:
        """Pull a payload into ``sink``, when its turn has come; ``on_moved`` is called whenever bytes came.

        Cancelling it tells the owner to stop.

        Raises:
            ConnectionLostError: its owner is gone, fell silent for ten seconds (twenty, while payloads
                of others come), or sent nothing of it for a minute.
            PermissionDeniedError: the server does not let us ask its owner.
            DecodeError: what comes is not what was announced; and whatever the sink raises.
        """
        if not self._line.is_peer(reference.owner):
            raise DecodeError(f"A reference to {reference.owner!r}, which is no owner's subject here.")
        pull = _Pull(reference, sink, Window(reference.size, self._loop.time()), on_moved)
        pull.turn = self._turns.join(
            reference.owner, lambda: self._begin(pull), lambda: pull.fail(self._silent(pull))
        )
        self._turns.go()
        try:
            while not pull.begun.done():
                await asyncio.wait([pull.begun], timeout=REMIND)
                self._remind(pull)
            while not pull.done.done():
                await asyncio.wait([pull.done], timeout=_LOOK)
                self._look(pull)
            pull.done.result()
        finally:
            self._end(pull)

    def want(self, reference: Reference) -> None:
        """Let the owner of a payload know that it is going to be pulled; else it is given up after a minute."""
        if self._line.opened and self._line.is_peer(reference.owner):
            self._post(os.urandom(16), reference, 0, 0)

    def _begin(self, pull: _Pull) -> None:
        """Its turn has come."""
        if pull.done.done():
            return  # it is about to leave
        count = self._turns.begun
        start = self._pace.start(count)
        pull.window = Window(pull.reference.size, self._loop.time(), self._pace.most(count), start)
        self._ask(pull)
        self._share()
        pull.begin()

    def _end(self, pull: _Pull) -> None:
        """All has come, or nobody wants it any more."""
        if not pull.turn.waiting:
            self._pace.learn(sum(one.window.width for one in self._begun()))
        self._pulls.pop(pull.id, None)
        pull.done.cancel()
        self._line.post(pull.reference.owner, Frame(FrameKind.DONE, pull.id, body=pull.reference.payload))
        self._turns.leave(pull.reference.owner, pull.turn)
        self._share()

    def _begun(self) -> list[_Pull]:
        return [pull for pull in self._pulls.values() if not pull.turn.waiting]

    def _share(self) -> None:
        """There are more or fewer pulls than before."""
        most = self._pace.most(self._turns.begun)
        for pull in self._begun():
            pull.window.most = most

    def _remind(self, pull: _Pull) -> None:
        """Let the owner of a payload whose turn has not come know that it is wanted."""
        if pull.turn.waiting and not pull.done.done():
            self._question(pull, 0)

    def _ask(self, pull: _Pull) -> None:
        """Ask for the rest of a payload."""
        self._question(pull, pull.window.ask(self._loop.time()))

    def _question(self, pull: _Pull, limit: int) -> None:
        self._pulls.pop(pull.id, None)
        pull.id = os.urandom(16)
        self._pulls[pull.id] = pull
        self._post(pull.id, pull.reference, pull.window.got, limit)

    def _post(self, id: bytes, reference: Reference, got: int, limit: int) -> None:
        body = PULL.pack(reference.payload, got, limit)
        name = self._line.pull_subject(id).encode()
        self._line.post(reference.owner, Frame(FrameKind.PULL, id, name, body=body), id)

    def _look(self, pull: _Pull) -> None:
        if pull.done.done():
            return
        now, lane = self._loop.time(), pull.turn.lane
        step = pull.window.look(now, self._line.online, lane.heard, self._heard)
        if step is Step.GIVE_UP:
            self._give_up(pull)
        elif step is Step.STARVED:
            pull.fail(self._starved(pull))
        elif step is Step.ASK:
            self._ask(pull)
        if pull.window.silent(now) >= ASK_AGAIN:
            self._turns.rest(pull.turn)

    def _give_up(self, pull: _Pull) -> None:
        """Its owner is gone: nobody need wait for that once more."""
        pull.fail(self._silent(pull))
        for turn in list(pull.turn.lane.waiting):
            turn.give_up()

    def _denied(self, denied: Denied) -> bool:
        if not denied.publishing:
            return False
        pulls = [pull for pull in self._pulls.values() if denied.meets(pull.reference.owner)]
        for pull in pulls:
            pull.fail(denied.error(pull.reference.owner))
        return bool(pulls)

    def _silent(self, pull: _Pull) -> TransportError:
        return self._stopped(pull, f"its owner is gone, or has been silent for {GIVE_UP:g} s.")

    def _starved(self, pull: _Pull) -> TransportError:
        return self._stopped(
            pull,
            f"its owner lives, but sent nothing of it for {STARVED:g} s. "
            "Its connection may be too slow for all that is pulled from it.",
        )

    def _stopped(self, pull: _Pull, why: str) -> TransportError:
        window = pull.window
        return ConnectionLostError(
            f"A payload of {window.size:,} bytes stopped after {window.got:,}: {why}",
            url=self._line.connection.shown,
        )

    # -- what comes in ------------------------------------------------------

    def chunk(self, id: bytes, offset: int, length: int) -> Feed:
        """A chunk begins: what takes its bytes; those that nobody waits for show that the line goes."""
        pull = self._pulls.get(id)
        if pull is None or pull.done.done():
            return self._passed
        if not pull.window.fits(offset, length):
            window = pull.window
            pull.fail(
                DecodeError(
                    f"A chunk of {length:,} bytes at {offset:,} of a payload of {window.size:,} "
                    f"of which {window.got:,} have come and {window.limit:,} were asked for.",
                    id=id,
                )
            )
            return self._passed
        return lambda piece: self._add(pull, id, piece)

    def _add(self, pull: _Pull, id: bytes, piece: memoryview) -> None:
        now = self._heard = self._loop.time()
        if pull.id != id or pull.done.done():
            return  # the rest of a chunk of a pull that has ended, or begun anew
        pull.turn.lane.heard = now
        window = pull.window
        try:
            pull.sink.write(piece)
        except Exception as error:  # of the sink's own making, and the pull's to tell
            pull.fail(error)
            return
        window.add(len(piece), now)
        self._turns.go_on(pull.turn)
        if pull.on_moved is not None:
            pull.on_moved()
        if window.complete:
            pull.done.set_result(None)
        elif (limit := window.grant(now)) is not None:
            self._line.post(pull.reference.owner, Frame(FrameKind.GRANT, id, body=GRANT.pack(limit)))

    def _passed(self, piece: memoryview) -> None:
        self._heard = self._loop.time()

    def beat(self, body: Buffer) -> None:
        """An owner says that these pulls wait for their turns there."""
        now = self._heard = self._loop.time()
        for at in range(0, len(body), 16):
            pull = self._pulls.get(bytes(body[at : at + 16]))
            if pull is not None and not pull.turn.waiting:
                pull.window.told(now)
                pull.turn.lane.heard = now
                self._turns.go_on(pull.turn)

    def gone(self, id: bytes) -> None:
        """The owner has no such payload."""
        if (pull := self._pulls.get(id)) is not None:
            size = pull.reference.size
            pull.fail(
                TransportError(
                    f"Its owner does not have the payload of {size:,} bytes any more: it keeps one for "
                    f"{FORGOTTEN:g} s after it was last asked for."
                )
            )

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
        if (pull := self._pulls.get(id)) is not None and not pull.turn.waiting:
            pull.window.absent(self._loop.time())
