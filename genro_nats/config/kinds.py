"""The kinds of executor, their aliases, and the error for an unknown one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from genro_nats.config.suggest import did_you_mean
from genro_nats.errors import ConfigurationError

__all__ = ["ALIASES", "DEFAULT_KIND", "KINDS", "known_kind"]

DEFAULT_KIND: Final = "process"
KINDS: Final = ("inline", "thread", "process", "async", "async-process", "nats")
ALIASES: Final[Mapping[str, str]] = {"local": "process"}


def known_kind(kind: str, kinds: Iterable[str] = KINDS, where: str = "") -> str:
    """Return the one name of `kind`, aliases resolved; a name in `kinds` is never an alias.

    `where` ends the message of the ConfigurationError that an unknown kind raises.
    """
    available = list(dict.fromkeys(kinds))
    name = kind if kind in available else ALIASES.get(kind, kind)
    if name in available:
        return name
    aliases = [alias for alias, target in ALIASES.items() if target in available]
    hint = did_you_mean(kind, [*available, *aliases])
    place = f" ({where})" if where else ""
    raise ConfigurationError(
        f"Unknown executor type: {kind!r}. Available types: {', '.join(available)}.{hint}{place}",
        kind=kind,
        available=tuple(available),
    )
