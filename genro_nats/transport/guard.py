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
from typing import Final

from genro_nats.codec.frame import Buffer
from genro_nats.codec.replays import Window
from genro_nats.codec.signing import MAGIC, SEAL_SIZE, Flaw, Keyring, Opening
from genro_nats.config import PoolOptions
from genro_nats.errors import ConfigurationError
from genro_nats.transport.contexts import SERVER, STORED, Contexts
from genro_nats.transport.reader import Raw

__all__ = ["KEY", "Guard", "has_keys", "make_guard"]

log: Final = logging.getLogger("genro_nats.transport")

KEY: Final = "GENRO_NATS_KEY"
_SEALED: Final = Flaw(
    "no key",
    "it is signed, and this side has no key: give it the same one (GENRO_NATS_KEY or key_file)",
)
_POSING: Final = Flaw(
    "status",
    "it has a status, as the server's own words have, and data, which those have not, "
    "or it came where the server has nothing to say",
)
# Where we ask, or are answered: the server says there that nobody is, or that a pull has ended. Nobody can sign
# that, so what hears there does no more for it than to ask again, and everywhere else it is refused.
_TOLD: Final = frozenset({"reply", "pull", "bulk", "peers", "worker"})


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
        context = self._contexts.sent(subject, reply, headers, block)
        if self._keys is None or context is None:
            return b""
        return self._keys.seal(context, pieces, time.time_ns())

    def seal_all(self, messages: Sequence[tuple[str, Buffer, str, bytes]]) -> list[bytes]:
        """``seal`` for each subject, data, reply subject and header block."""
        assert self._keys is not None
        sent, calls = self._contexts.sent, self._contexts.calls
        wanted = [
            (
                begun + reply.encode()
                if (begun := calls.get(subject))
                else sent(subject, reply, None, block),
                data,
            )
            for subject, data, reply, block in messages
        ]
        return self._keys.seal_all(wanted, time.time_ns())

    # -- in -----------------------------------------------------------------

    def room(self, subject: str) -> str:
        """As ``Contexts.room``."""
        return self._contexts.room(subject)

    def open(
        self, room: str, subject: str, reply: str, data: bytes, status: str, headers: Mapping[str, str]
    ) -> bytes | Flaw:
        """The data of a message that came over the connection, without its seal; ``room``: of its subject."""
        if room in SERVER:
            return data
        if status:
            if self._keys is not None and room not in _TOLD:
                return self.refused(subject, _POSING)
            if data:
                self.refused(subject, _POSING)
            return b""  # the server's own word has no data, and what else claims to be one gets none
        if self._keys is None:
            return self._unkeyed(subject, data)
        context = self._contexts.heard(subject, room, reply, headers)
        found = self._keys.verify(context, data)
        if isinstance(found, Flaw):
            return self.refused(subject, found)
        sealed, when, code = found
        if room not in STORED and (flaw := self._window.take(when, code, time.time_ns())) is not None:
            return self.refused(subject, flaw)
        return sealed

    def open_fresh(self, messages: Sequence[Raw]) -> list[bytes | Flaw | None]:
        """As ``open``, of messages on subjects that are plain, see ``Contexts``, where there are keys.

        None: it has headers, and is to be opened by ``open``.
        """
        assert self._keys is not None
        came = (
            (None if headers else subject + b"\n" + reply, data) for subject, reply, data, headers in messages
        )
        opened = self._keys.open_all(came, self._window.take, time.time_ns())
        for message, one in zip(messages, opened, strict=True):
            if isinstance(one, Flaw):
                self.refused(message[0].decode(errors="replace"), one)
        return opened

    def is_plain(self, subject: str) -> bool:
        """As ``Contexts.is_plain``."""
        return self._contexts.is_plain(subject)

    def open_stored(self, subject: str, data: bytes, headers: Mapping[str, str]) -> bytes | Flaw:
        """As ``open``, of a message as its stream holds it on ``subject``."""
        if self._keys is None:
            return self._unkeyed(subject, data)
        if self.room(subject) == "blob" and not subject.endswith(".head"):
            # The hash in what refers to a payload vouches for it, also once its writer's key is gone.
            return data[SEAL_SIZE:] if data[:4] == MAGIC else data
        context = self._contexts.heard(subject, self.room(subject), "", headers)
        found = self._keys.verify(context, data)
        return self.refused(subject, found) if isinstance(found, Flaw) else found[0]

    def open_buried(self, subject: str, data: bytes) -> bytes | Flaw:
        """As ``open``, of one that was refused on ``subject`` and kept in a dead letter as it came."""
        if self._keys is None:
            return self._unkeyed(subject, data)
        found = [self._keys.verify(context, data) for context in self._contexts.buried(subject)]
        for opened in found:
            if not isinstance(opened, Flaw):
                return opened[0]
        assert isinstance(found[0], Flaw)
        return self.refused(subject, found[0])

    def opening(self, subject: str, start: bytes) -> Opening | Flaw:
        """Begin to verify a large message whose data comes in pieces; then ask ``judge``."""
        assert self._keys is not None
        found = self._keys.opening(self._contexts.heard(subject, self.room(subject), "", {}), start)
        return self.refused(subject, found) if isinstance(found, Flaw) else found

    def judge(self, subject: str, opening: Opening, *, once: bool) -> Flaw | None:
        """What is wrong with a message that has come as a whole. ``once``: it must not have come before."""
        flaw, now = opening.verdict(), time.time_ns()
        if flaw is None and once:
            flaw = self._window.take(opening.time, opening.code, now)
        elif flaw is None:
            flaw = self._window.timely(opening.time, now)
        return None if flaw is None else self.refused(subject, flaw)

    def refused(self, subject: str, flaw: Flaw) -> Flaw:
        """Count a message that is not handed on."""
        self.rejected[flaw.reason] += 1
        log.debug("a message on %s was refused: %s", subject, flaw.text)
        for observer in self.on_rejected:
            observer(subject, flaw)
        return flaw

    def unreadable(self, subject: str, text: object) -> None:
        """Count a message that has no meaning for who hears that subject; ``text``: why."""
        self.refused(subject, Flaw("unreadable", str(text)))

    def _unkeyed(self, subject: str, data: bytes) -> bytes | Flaw:
        return self.refused(subject, _SEALED) if data[:4] == MAGIC else data


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
