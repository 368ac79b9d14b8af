"""What a list lacks where messages can't be verified, for without a word it looks like that of a quiet pool."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

__all__ = ["note_distrusted"]

_NO_KEYS: Final = frozenset({"status", "unreadable"})  # refused, and no other key would help


def note_distrusted(refused: Mapping[str, int]) -> None:
    """Say on stderr how many messages could not be verified, if any. ``refused``: by reason."""
    counts = {reason: count for reason, count in refused.items() if reason not in _NO_KEYS}
    if not counts:
        return
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    print(
        f"note: messages that could not be verified, so what they say is not shown: {sum(counts.values())} "
        f"({reasons}). Has this side the shared key of the others (--key-file, GENRO_NATS_KEY)?",
        file=sys.stderr,
    )
