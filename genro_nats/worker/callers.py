"""Which versions of genro-nats call a worker, and what a newer one says that is not understood here."""

from __future__ import annotations

import json
from typing import Final

from genro_nats import __version__
from genro_nats.codec.frame import KNOWN_FLAGS, Buffer, Head
from genro_nats.config.versions import apart
from genro_nats.errors import DecodeError
from genro_nats.events import Events

__all__ = ["CallerVersions", "unknown_flags"]

_REMEMBERED: Final = 100
_LONGEST: Final = 64  # characters


class CallerVersions:
    """Says in the log, once for each version, that callers are too far from this worker."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._seen: set[str] = set()

    def __call__(self, meta: Buffer) -> None:
        """A caller has said its version."""
        try:
            version = json.loads(bytes(meta))["version"]
        except (ValueError, KeyError, TypeError):
            return
        if not isinstance(version, str) or len(version) > _LONGEST or version in self._seen:
            return
        if len(self._seen) < _REMEMBERED:
            self._seen.add(version)
            if apart(version, __version__):
                self._events("caller.apart", version=version, own=__version__)


def unknown_flags(head: Head) -> DecodeError:
    """The error for a call that asks for what this version does not know."""
    flags = head.flags & ~KNOWN_FLAGS
    return DecodeError(
        f"A call with flags {flags:#x}, which this worker (genro-nats {__version__}) does not know: its "
        "caller is newer. Bring both to the same version, or to neighbouring minor ones.",
        id=head.id,
        flags=flags,
    )
