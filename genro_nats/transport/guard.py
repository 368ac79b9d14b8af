"""What a connection lets out and in: with keys everything of ours is sealed, and verified before anybody sees it.

Without keys nothing is sealed, and a sealed message is refused: who sent it trusts
only those who have the key, and its bytes are no frame.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from genro_nats.codec.frame import Buffer
from genro_nats.codec.replays import Window
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Flaw, Keyring, Opening, wrong
from genro_nats.config import PoolOptions
from genro_nats.errors import ConfigurationError
from genro_nats.transport.contexts import STORED, Contexts

__all__ = ["KEY", "Guard", "Opened", "has_keys", "make_guard"]

log: Final = logging.getLogger("genro_nats.transport")

KEY: Final = "GENRO_NATS_KEY"
_SEALED: Final = Flaw(
    "no key",
    "it is signed, and this side has no key: give it the same one (GENRO_NATS_KEY or key_file)",
)


class Opened(NamedTuple):
    """A message as it is handed on: ``data`` without its seal; as it came, if there is a ``flaw``."""

    data: bytes
    flaw: Flaw | None


class Guard:
    """Of one worker or pool, for all of its connections. ``rejected``: how many messages, by reason.

    ``on_rejected(subject, flaw)``: called for each.
    """

    def __init__(self, keys: Keyring | None = None, prefix: str = "genro", window: float = 60.0) -> None:
        self._keys = keys
        self._contexts = Contexts(prefix)
        self._window = Window(window)
        self.keyed: Final = keys is not None
        self.overhead: Final = SEAL_SIZE if keys is not None else 0
        self.rejected: Counter[str] = Counter()
        self.on_rejected: list[Callable[[str, Flaw], object]] = []

    # -- out ----------------------------------------------------------------

    def seal(
        self,
        subject: str,
        pieces: Sequence[Buffer],
        reply: str,
        headers: Mapping[str, str] | None = None,
        block: bytes = b"",
    ) -> bytes:
        """What has to stand before the data: a seal, or nothing before what is meant for the server."""
        contexts = self._contexts
        room = contexts.room(subject)
        if self._keys is None or contexts.of_server(subject, room):
            return b""
        return self._keys.seal(contexts.sent(subject, room, reply, headers, block), pieces, time.time_ns())

    # -- in -----------------------------------------------------------------

    def open(self, subject: str, reply: str, data: bytes, status: str, headers: Mapping[str, str]) -> Opened:
        """A message that came over the connection."""
        contexts = self._contexts
        room = contexts.room(subject)
        if contexts.of_server(subject, room):
            return Opened(data, None)
        if status:
            return Opened(
                b"", None
            )  # the server's own word has no data, and what else claims to be one gets none
        if self._keys is None:
            return self._unkeyed(subject, data)
        context = contexts.heard(subject, room, reply, headers)
        seal = self._keys.verify(context, data)
        if not isinstance(seal, Flaw):
            flaw = None if room in STORED else self._window.take(seal, time.time_ns())
            if flaw is None:
                return Opened(data[SEAL_SIZE:], None)
            seal = flaw
        return self._refuse(subject, data, seal)

    def open_stored(self, subject: str, data: bytes, headers: Mapping[str, str]) -> Opened:
        """A message as its stream holds it on ``subject``."""
        if self._keys is None:
            return self._unkeyed(subject, data)
        room = self._contexts.room(subject)
        seal = self._keys.verify(self._contexts.heard(subject, room, "", headers), data)
        return self._refuse(subject, data, seal) if isinstance(seal, Flaw) else Opened(data[SEAL_SIZE:], None)

    def open_buried(self, subject: str, data: Buffer) -> Opened:
        """The message in the dead letter of one that was refused, which was on ``subject``."""
        found = bytes(data)
        if self._keys is None:
            return self._unkeyed(subject, found)
        flaws = []
        for context in self._contexts.buried(subject):
            seal = self._keys.verify(context, found)
            if not isinstance(seal, Flaw):
                return Opened(found[SEAL_SIZE:], None)
            flaws.append(seal)
        return self._refuse(subject, found, flaws[0])

    def opening(self, subject: str, start: Buffer) -> Opening | Flaw:
        """Begin to verify a large message whose data comes in pieces; then ask ``judge``."""
        assert self._keys is not None
        room = self._contexts.room(subject)
        found = self._keys.opening(self._contexts.heard(subject, room, "", {}), start)
        return self.refused(subject, found) if isinstance(found, Flaw) else found

    def judge(self, subject: str, opening: Opening) -> Flaw | None:
        """What is wrong with a message that has come as a whole."""
        flaw = self._window.timely(opening.seal, time.time_ns()) if opening.right else wrong(opening.seal)
        return None if flaw is None else self.refused(subject, flaw)

    def refused(self, subject: str, flaw: Flaw) -> Flaw:
        """Count a message that is not handed on."""
        self.rejected[flaw.reason] += 1
        log.debug("a message on %s was refused: %s", subject, flaw.text)
        for observer in self.on_rejected:
            observer(subject, flaw)
        return flaw

    def _unkeyed(self, subject: str, data: bytes) -> Opened:
        return self._refuse(subject, data, _SEALED) if data[:4] == MAGIC else Opened(data, None)

    def _refuse(self, subject: str, data: bytes, flaw: Flaw) -> Opened:
        return Opened(data, self.refused(subject, flaw))


def make_guard(options: PoolOptions) -> Guard:
    """The guard of a pool or worker: by the keys of ``key_file``, else of GENRO_NATS_KEY, if there are any.

    Raises:
        ConfigurationError: keys that can't be read; without showing them.
    """
    return Guard(_keys(options), options.prefix, options.replay_window)


def has_keys(options: PoolOptions) -> bool:
    """Are messages signed?"""
    return bool(options.key_file or os.environ.get(KEY))


def _keys(options: PoolOptions) -> Keyring | None:
    if options.key_file is None:
        text = os.environ.get(KEY, "")
        return Keyring.parse(text, KEY) if text else None
    try:
        text = Path(options.key_file).expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
    else:
        return Keyring.parse(text, f"key_file {options.key_file!r}")
    raise ConfigurationError(f"key_file {options.key_file!r} can't be read: {told}.", option="key_file")
